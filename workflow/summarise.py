"""One line per data set, the paper beside ours: python workflow/summarise.py OUTPUT CSV..."""

import sys

import pandas as pd

COLUMNS = ["data", "k", "paper", "n_scores", "rule", "visible", "median", "share_exact", "share_within_1", "seed"]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Medians over the points and then the seeds, and mean shares, at K = 4 d, where the paper has a number."""
    table = table.reindex(columns=COLUMNS).dropna(subset=["k", "paper"])   # tables of other experiments lack some
    table = table[table.n_scores == table.groupby("data").n_scores.transform("min")]
    ours, published = (table[table.rule == rule].groupby(["data", "k"], sort=False)
                       for rule in ("recommended", "published"))
    columns = {
        "visible": ours["visible"].median().round(1),
        "ours": ours["median"].median(),
        "exact": ours["share_exact"].mean().map("{:.0%}".format),
        "within 1": ours["share_within_1"].mean().map("{:.0%}".format),
        "published rule": published["median"].median(),
        "exact ": published["share_exact"].mean().map("{:.0%}".format),
        "paper": ours["paper"].first(),
        "seeds": ours["seed"].nunique(),
    }
    return pd.DataFrame(columns).rename_axis(["data", "truth"]).reset_index()


def main(output: str, *tables: str) -> None:
    lines = summary(pd.concat([pd.read_csv(path) for path in tables]))
    lines.to_csv(output, index=False, float_format="%g", lineterminator="\n")
    print(lines.to_string(index=False, na_rep="–", float_format="%g") if len(lines) else
          "none of these tables has a number of the paper")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
