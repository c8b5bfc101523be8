"""Print result tables beside the paper's numbers: python workflow/show.py CSV..."""

import sys

import pandas as pd


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One line per data set: the recommended rule, the published one, the paper; seeds averaged."""
    ours = table[table.rule == "recommended"].groupby(["data", "k"], sort=False)
    published = table[table.rule == "published"].groupby(["data", "k"], sort=False)
    return (
        pd.DataFrame(
            {
                "answer": ours["median"].mean(),
                "exact at": ours["share_exact"].mean().map("{:.0%} of points".format),
                "published rule": published["median"].mean(),
                "paper": ours["paper"].first(),
                "seeds": ours["seed"].nunique(),
            }
        )
        .rename_axis(["data", "truth"])
        .reset_index()
    )


if __name__ == "__main__":
    tables = pd.concat([pd.read_csv(path) for path in sys.argv[1:]])
    print(summary(tables).to_string(index=False, na_rep="–", float_format="%g"))
