"""The paper's Table 2, ours and the rivals', a line for each data set: python workflow/table2.py OUTPUT CSV..."""

import sys

import pandas as pd

from dimlib.compare.baselines import METHODS

ROWS = ["10-sphere", "50-sphere", "spaghetti line", "squares 10", "squares 20", "squares 100",
        "blobs 10", "blobs 20", "blobs 100", "mnist"]
SHORT = {"MLE (m=5)": "mle5", "MLE (m=20)": "mle20", "local PCA": "local_pca", "probabilistic PCA": "ppca"}
RIVALS = {method: SHORT.get(method, method.lower()) for method in METHODS}
MNIST = 152  # the paper's number for all digits: its largest, that of the nines


def all_digits(table: pd.DataFrame) -> pd.DataFrame:
    """The longest training on MNIST at the smallest σ: a row for each seed, the mean over the ten digits."""
    digits = table[table.data.str.fullmatch(r"mnist \d")]
    digits = digits[(digits.steps == digits.steps.max()) & (digits.sigma == digits.sigma.min())]
    means = digits.groupby(["seed", "commit"], as_index=False).mean(numeric_only=True)
    return means.assign(data="mnist", paper=MNIST)


def ours(table: pd.DataFrame) -> pd.DataFrame:
    """The recommended rule at K = 4 d: over the seeds, the median of the medians, the mean and the sd of the means."""
    table = table[(table.rule == "recommended") & (table.n_scores == table.groupby("data").n_scores.transform("min"))]
    seeds = pd.concat([table[table.data.isin(ROWS)], all_digits(table)]).groupby("data")
    mean = seeds.mean(numeric_only=True)
    return pd.DataFrame({
        "truth": mean["k"], "visible": seeds["visible"].median(),
        "ours_median": seeds["median"].median(), "ours_mean": mean["mean"], "ours_sd": seeds["mean"].std(),
        "share_exact": mean["share_exact"], "paper": mean["paper"], "seeds": seeds["seed"].nunique(),
        "seconds_train": mean["seconds_train"], "seconds_estimate": mean["seconds_estimate"],
        "n_evaluations": mean["n_scores"], "commit": seeds["commit"].agg(lambda c: " ".join(sorted(set(c)))),
        "sigma": seeds["sigma"].median()})


def main(output: str, *tables: str) -> None:
    table = pd.concat([pd.read_csv(path, dtype={"commit": str}) for path in tables])
    rivals = table[table.method.notna()].pivot_table("estimate", "data", "method").rename(columns=RIVALS)
    whole = ours(table).join(rivals, how="outer").reindex(index=ROWS)
    first = ["truth", "visible", "ours_median", "ours_mean", "ours_sd", "share_exact", "paper", *RIVALS.values()]
    whole = whole.reindex(columns=[*first, *(name for name in whole if name not in first)])
    whole.astype({"seeds": "Int64"}).to_csv(output, float_format="%.6g", index_label="data", lineterminator="\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
