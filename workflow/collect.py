"""Put the rows of many metrics.json into one csv: python workflow/collect.py OUTPUT METRICS..."""

import csv
import json
import sys
from pathlib import Path


def main(output: str, *metrics: str) -> None:
    rows = [row for path in metrics for row in json.loads(Path(path).read_text())["rows"]]
    if not rows:
        raise ValueError(f"there are no rows for {output} in {', '.join(metrics)}: the notebook must store some, by "
                         "dimlib.book.records.write_metrics")
    rows = [{name: f"{x:.6g}" if isinstance(x, float) else x for name, x in row.items()} for row in rows]
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with open(output, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
