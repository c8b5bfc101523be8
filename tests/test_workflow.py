"""The scripts of the workflow, on small inputs."""

import base64
import json
import math
import os
import re
import runpy
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import nbformat.v4 as new
import pandas as pd
import pytest
import yaml

from dimlib.data.pool import POOL

ROOT = Path(__file__).parents[1]


def notebook_with_figures():
    def drawing(content):
        picture = new.new_output("display_data", {"image/png": base64.b64encode(content).decode()})
        return new.new_code_cell("draw()", outputs=[picture])

    return new.new_notebook(cells=[
        new.new_markdown_cell("# A chapter"), drawing(b"first"),
        new.new_markdown_cell("## Tangents seen\n\nin words"), drawing(b"second"), drawing(b"third")])


def test_figures_are_found_by_their_section(tmp_path):
    nbformat.write(notebook_with_figures(), tmp_path / "run.ipynb")
    outputs = tmp_path / "mnist-tangents-seen.png", tmp_path / "mnist-a-chapter.png"
    subprocess.run([sys.executable, ROOT / "workflow/figures.py", tmp_path / "run.ipynb", *outputs], check=True)
    assert [output.read_bytes() for output in outputs] == [b"third", b"first"]


def test_a_section_without_a_figure_is_named(tmp_path):
    nbformat.write(notebook_with_figures(), tmp_path / "run.ipynb")
    command = [sys.executable, ROOT / "workflow/figures.py", tmp_path / "run.ipynb", tmp_path / "x-samples.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and "no figure in a section 'samples'" in done.stderr


def rows_of(data, **columns):
    """Rows as in results/, by default the answer 11 of the recommended rule to a truth of 10."""
    default = {"k": 10, "visible": 10, "seed": 0, "rule": "recommended", "sigma": 0.01, "mean": 11, "median": 11,
               "share_exact": 0, "paper": 12, "steps": 100, "n_scores": 400, "seconds_train": 1.0,
               "seconds_estimate": 2.0, "commit": "838e265236"}
    return pd.DataFrame(default | {"data": data} | columns)


def run_script(name, folder, **tables):
    for table, rows in tables.items():
        rows.to_csv(folder / f"{table}.csv", index=False)
    main = runpy.run_path(str(ROOT / "workflow" / name))["main"]
    main(str(folder / "out.csv"), *(str(folder / f"{table}.csv") for table in tables))
    return pd.read_csv(folder / "out.csv", dtype={"commit": str}).set_index("data")


@pytest.fixture
def rivals():
    return pd.DataFrame({"data": ["10-sphere"] * 3 + ["mnist"], "method": ["MLE (m=5)", "PCA", "PH", "TwoNN"],
                         "estimate": [9.5, 11, None, 13], "seconds": 1.0, "n_data": 1000, "commit": "838e265236"})


def test_table_2_joins_seeds_rivals_and_blanks(tmp_path, rivals):
    spheres = pd.concat([
        rows_of(["10-sphere"] * 3, seed=[0, 1, 2], sigma=[0.01, 0.04, 0.02], median=[10, 10, 13],
                mean=[10, 10.5, 12.5]),
        rows_of(["10-sphere"], rule="gap", median=99, mean=99),
        rows_of(["10-sphere"], n_scores=4000, median=99, mean=99),  # more scores than 4 d
        rows_of(["10-sphere, R=1"], median=99, mean=99)])  # another data set
    table = run_script("table2.py", tmp_path, spheres=spheres, rivals=rivals)
    assert list(table.index) == ["10-sphere", "50-sphere", "spaghetti line", "squares 10", "squares 20", "squares 100",
                                 "blobs 10", "blobs 20", "blobs 100", "mnist"]
    row = table.loc["10-sphere"]
    assert [row.truth, row.ours_median, row.ours_mean, row.paper, row.sigma, row.seeds] == [10, 10, 11, 12, 0.02, 3]
    assert row.ours_sd == pytest.approx(1.75**0.5, rel=1e-5) and row.commit == "838e265236"
    assert [row.n_evaluations, row.mle5, row.pca] == [400, 9.5, 11] and pd.isna(row.ph) and pd.isna(row.twonn)
    assert table.loc["mnist", "twonn"] == 13 and table.loc["50-sphere"].isna().all()


def test_table_2_has_the_columns_that_the_book_promises(tmp_path, rivals):
    columns = list(run_script("table2.py", tmp_path, spheres=rows_of(["10-sphere"]), rivals=rivals))
    assert columns == [
        "truth", "visible", "ours_median", "ours_mean", "ours_sd", "share_exact", "paper", "mle5", "mle20", "pca",
        "local_pca", "ppca", "twonn", "danco", "ess", "fishers", "corrint", "gride", "knn", "mada", "mom", "mind_ml",
        "ph", "tle", "seeds", "seconds_train", "seconds_estimate", "n_evaluations", "commit", "sigma"]
    assert columns == list(pd.read_csv(ROOT / "results" / "table2.csv", index_col="data"))


def test_table_2_takes_the_mean_over_the_digits_of_the_longest_run_at_the_smallest_sigma(tmp_path, rivals):
    digits = pd.concat([
        rows_of(["mnist 0", "mnist 1"], k=None, visible=None, share_exact=None, median=[90, 50], mean=[95, 45]),
        rows_of(["mnist 0", "mnist 1"], sigma=0.02, median=1, mean=1),
        rows_of(["mnist 0", "mnist 1"], steps=10, median=400, mean=400)])
    row = run_script("table2.py", tmp_path, mnist=digits, rivals=rivals).loc["mnist"]
    assert [row.ours_median, row.ours_mean, row.paper, row.seeds] == [70, 70, 152, 1]
    assert pd.isna(row.truth) and pd.isna(row.ours_sd)


def test_the_summary_leaves_out_the_rivals(tmp_path, rivals):
    spheres = rows_of(["10-sphere"] * 2, rule=["recommended", "published"], share_within_1=1)
    alone = run_script("summarise.py", tmp_path, spheres=spheres)
    assert run_script("summarise.py", tmp_path, spheres=spheres, rivals=rivals).equals(alone)


def test_the_summary_of_tables_without_numbers_of_the_paper_is_empty(tmp_path, rivals, capsys):
    uses = pd.DataFrame({"data": ["digits"], "n_data": [1400], "auroc": [0.06], "commit": ["f1b831f7cc"]})
    table = run_script("summarise.py", tmp_path, two_uses=uses, rivals=rivals)
    assert len(table) == 0 and {"truth", "ours", "paper"} <= set(table)
    assert capsys.readouterr().out == "none of these tables has a number of the paper\n"


def test_runs_without_rows_are_named(tmp_path):
    (tmp_path / "metrics.json").write_text('{"rows": []}')
    main = runpy.run_path(str(ROOT / "workflow" / "collect.py"))["main"]
    with pytest.raises(ValueError, match="no rows for out.csv in .*metrics.json: the notebook must store some"):
        main("out.csv", str(tmp_path / "metrics.json"))


@pytest.mark.parametrize("script", sorted([
    *(f"workflow/{name}.py" for name in (
        "collect", "figures", "kit", "pdf", "picture", "run_notebook", "student", "summarise", "table2")),
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("benchmarks/*.py"))]))
def test_a_script_without_arguments_says_how_it_is_called(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.syspath_prepend(ROOT / "workflow")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert f"python {script} " in ended.value.code


def test_a_benchmark_that_is_interrupted_leaves_the_old_table(tmp_path):
    def interrupted():
        yield "what", "setting", 1.0, 2.0
        raise KeyboardInterrupt

    (tmp_path / "speed.csv").write_text("old\n")
    main = runpy.run_path(str(ROOT / "benchmarks" / "speed.py"))["main"]
    main.__globals__["decomposition"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        main(tmp_path / "speed.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["speed.csv"]
    assert (tmp_path / "speed.csv").read_text() == "old\n"


@pytest.mark.skipif(os.name != "posix", reason="the signal is one of POSIX")
def test_a_run_that_is_terminated_leaves_nothing(tmp_path):
    """As Slurm does at its time limit."""
    waiting = "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(600)"
    nb = new.new_notebook(cells=[new.new_code_cell(waiting)])
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, tmp_path / "notebook.ipynb")
    run = subprocess.Popen([sys.executable, ROOT / "workflow/run_notebook.py", tmp_path / "notebook.ipynb",
                            tmp_path / "run.ipynb"], stderr=subprocess.DEVNULL)
    while not (tmp_path / "started").exists():
        assert run.poll() is None
        time.sleep(0.1)
    run.terminate()
    assert run.wait(60) == 143
    assert {path.name for path in tmp_path.iterdir()} == {"notebook.ipynb", "started"}


def plan(configuration):
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "-s", "workflow/Snakefile", "--profile", "workflow/profiles/quick",
         "--configfile", configuration], cwd=ROOT, capture_output=True, text=True)


def planned(tmp_path, experiments):
    configuration = {"profile": "mine", "tables": str(tmp_path), "experiments": experiments}
    (tmp_path / "mine.yaml").write_text(json.dumps(configuration))
    return plan(tmp_path / "mine.yaml")


def test_the_configuration_of_the_book_plans_its_runs(tmp_path):
    """The yaml block of the reproduction page, with the command below it."""
    page = (ROOT / "book/reproduce.md").read_text()
    (tmp_path / "mine.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    done = plan(tmp_path / "mine.yaml")
    assert done.returncode == 0, done.stderr
    for run in ("dim10_seed0", "dim10_seed3", "dim50_seed0", "dim50_seed3"):
        assert f"runs/mine/spheres/{run}/metrics.json" in done.stdout


@pytest.mark.parametrize("grids", [
    [{"dim": [5], "seed": [0]}, {"dim": [5], "seed": [0]}],
    [{"device": ["a b", "a-b"]}],
])
def test_two_runs_of_one_name_are_refused(tmp_path, grids):
    """The second would take the place of the first."""
    parts = [{"notebook": "07_spheres", "grid": grid, "parameters": {"steps": i + 1}} for i, grid in enumerate(grids)]
    done = planned(tmp_path, {"spheres": parts})
    assert done.returncode and "two runs are named" in done.stdout + done.stderr


@pytest.mark.parametrize("grid", [{"seed": 0}, {"data": "mnist"}, {"seed": []}, {}, None, "mnist"])
def test_a_grid_that_has_no_lists_is_refused(tmp_path, grid):
    """A text would be five runs, one for each letter."""
    done = planned(tmp_path, {"two_uses": [{"notebook": "28_two_uses", "grid": grid}]})
    assert done.returncode and f"two_uses: grid: {grid} must name lists of values" in done.stdout + done.stderr


def test_the_name_of_an_experiment_may_hold_any_letter(tmp_path):
    done = planned(tmp_path, {"c++ (2)": [{"notebook": "07_spheres", "grid": {"seed": [0]}}]})
    assert done.returncode == 0 and "runs/mine/c++ (2)/seed0/metrics.json" in done.stdout, done.stderr


def test_the_table_of_the_gpu_is_that_of_its_file():
    """The milliseconds and quotients of book/speed.md; for small networks a graph is several times faster."""
    runs = pd.read_csv(ROOT / "results/gpu.csv").dropna(subset="graph_ms")
    page = (ROOT / "book/speed.md").read_text()
    said = re.findall(r"\| (\d+) \| ([\d.]+) ms \| ([\d.]+) ms \| ([\d.]+) \|", page)
    measured = runs[["batch", "eager_ms", "graph_ms", "faster"]].round({"eager_ms": 1, "graph_ms": 1, "faster": 1})
    assert [tuple(map(float, line)) for line in said] == list(measured.itertuples(index=False, name=None))
    small = runs[runs.batch != 256].set_index("network").faster
    assert small["MLP 192 x 3"] > 5 and (small.drop("MLP 192 x 3") > 3).all()


def test_the_tables_of_speed_are_those_of_their_file():
    runs = pd.read_csv(ROOT / "results/speed.csv", dtype=str)
    page = (ROOT / "book/speed.md").read_text()
    said = {tuple(line.strip("| \n").split(" | ")) for line in page.splitlines() if line.count(" | ") == 4}
    measured = set(runs[["what", "setting", "ours", "other", "other/ours"]].itertuples(index=False, name=None))
    assert len(runs) > 30 and measured <= said


def test_the_counts_of_doubts_in_the_text_are_those_of_the_tables():
    """Right: at most one off above dimension 20."""
    def counts(runs, doubted):
        right = (runs.estimate - runs.k).abs() <= (runs.k > 20)
        return [int(which.sum()) for which in (right & ~doubted, ~right & ~doubted, right & doubted, ~right & doubted)]

    fits = pd.read_csv(ROOT / "results/doubts.csv", keep_default_na=False)
    runs = pd.read_csv(ROOT / "results/benchmark_manifolds.csv")
    runs = runs[runs.method == "diffusion"]
    clean, confident, doubted, wrong = counts(fits, fits.doubts != "")
    clean_21, confident_21, doubted_21, wrong_21 = counts(runs, runs.doubts > 0)
    assert confident == confident_21 == 0 and wrong == 4
    texts = {name: " ".join((ROOT / name).read_text().split()) for name in (
        "book/intro.md", "notebooks/21_hard_cases.ipynb", "notebooks/26_how_sure.ipynb")}
    intro, hard, sure = texts.values()
    assert f"In chapter 21 the library gave {clean_21} answers without a doubt; all are right" in intro
    assert f"it gave {clean} such answers; all are right" in intro
    assert f"The recipe gives {len(runs)} answers" in intro
    assert f"Of the {doubted_21 + wrong_21} answers with doubts" in intro
    assert f"The {clean_21} answers without a doubt are all right" in intro
    assert f"{doubted_21} are right and {wrong_21} are wrong" in intro
    assert f"all {clean_21} answers without a doubt are right" in hard
    assert f"for {doubted_21} of the {clean_21 + doubted_21} right answers" in hard
    assert f"So do {doubted_21} of the {clean_21 + doubted_21} right ones" in hard
    assert f"All {clean} answers without a doubt are right" in sure
    both = doubted + doubted_21, clean + doubted + clean_21 + doubted_21
    assert f"it is {both[0]} of {both[1]}, or {both[0] / both[1]:.0%}".replace("%", " %") in sure
    assert f"it is {clean_21} of {clean_21}, which makes {clean + clean_21} of {clean + clean_21} together" in sure
    share = doubted / (clean + doubted)
    assert f"{doubted} of the {clean + doubted} right answers have doubts, too: {share:.0%}".replace("%", " %") in sure
    fresh = runs[(runs.stage != "development") & (runs.doubts == 0)]
    assert f"Only {len(fresh)} of the {clean + clean_21} answers" in sure and f"these {len(fresh)} alone" in sure
    assert f"bound is {0.05 ** (1 / len(fresh)):.0%}".replace("%", " %") in sure
    for n in (clean, clean + clean_21):
        assert f"{0.05 ** (1 / n):.3f} for $n = {n}$" in sure


def test_the_numbers_of_runs_in_the_text_are_those_of_the_configuration():
    """Of the full profile, by chapter."""
    runs = Counter()
    for entries in yaml.safe_load((ROOT / "config" / "full.yaml").read_text())["experiments"].values():
        for entry in entries:
            runs[int(entry["notebook"][:2])] += math.prod(map(len, entry.get("grid", {}).values()))
    page = (ROOT / "book" / "reproduce.md").read_text()
    assert f"{sum(runs.values())} runs. The {sum(runs[c] for c in range(7, 15))} of chapters 7 to 14" in page
    assert f"the {runs[21] + runs[26]} of chapters 21 and 26" in page


def test_other_counts_in_the_text():
    contributing = " ".join((ROOT / "book" / "contributing.md").read_text().split())
    words = {11: "Eleven", 26: "twenty-six", 30: "thirty"}
    papermill = runpy.run_path(str(ROOT / "tests" / "test_notebooks_papermill.py"))
    assert f"{words[len(papermill['LONG'])]} notebooks take long even then" in contributing
    assert f"{words[len(POOL)]} small manifolds" in contributing
    slides = (ROOT / "book" / "slides" / "index.md").read_text()
    number = len(re.findall(r"^#{1,3} ", slides, re.MULTILINE))
    assert f"There are {words[number]} slides" in (ROOT / "book" / "teaching.md").read_text()
