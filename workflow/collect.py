"""Put the rows of many metrics.json into one csv: python workflow/collect.py OUTPUT METRICS..."""

import csv
import json
import sys
from pathlib import Path

from dimlib.records import COLUMNS


def main(output: str, *metrics: str) -> None:
    rows = [row for path in metrics for row in json.loads(Path(path).read_text())["rows"]]
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with open(output, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
