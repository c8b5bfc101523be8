"""Records: the schema, the arithmetic of a row, and files."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from dimlib.book import records
from dimlib.book.records import COLUMNS, commit, provenance, rows, write_metrics
from dimlib.curve import DimensionCurve
from dimlib.svd import Spectrum

ROOT = Path(__file__).parents[2]

DESIGN = ("data, k, visible, seed, rule, sigma, points, mean, median, share_exact, share_within_1, paper, "
          "excess_loss, network, parametrisation, steps, n_scores, seconds_train, seconds_estimate, device, commit")
COMMON = {"data": "sphere", "seed": 3, "paper": 11, "excess_loss": 0.5, "network": "MLP", "parametrisation": "data",
          "steps": 1500, "seconds_train": 1.0, "seconds_estimate": 2.0, "device": "cpu"}


def spectrum(ks, sigma, spike=False):
    """Clean two-population spectra in R^20 that say ks; a spike makes the gap say 19."""
    values = np.array([[0.55 + 0.01 * (20 - i) if i < 20 - k else 0.01 for i in range(20)] for k in ks])
    if spike:
        values[:, 0] = 5.0
    return Spectrum(values, np.array(ks, float), sigma, 80)


def make(truth=4, **more):
    curve = DimensionCurve((spectrum([4, 4, 5, 8], 0.01), spectrum([4, 4, 5, 8], 0.02), spectrum([9] * 4, 0.5)))
    published = spectrum([4] * 4, 0.03, spike=True)

    def visible(sigma):
        return torch.tensor([4, 4, 4, 2 if sigma < 0.025 else 0])

    return {row["rule"]: row for row in rows(curve, published, truth, visible, **COMMON | more)}


def test_columns_are_the_schema_of_the_design():
    assert ", ".join(COLUMNS) == DESIGN
    for row in make().values():
        assert tuple(row) == COLUMNS


def test_a_row_for_each_rule():
    table = make()
    assert list(table) == ["recommended", "gap", "ratio", "cut", "published"]
    for rule in ("recommended", "gap", "cut"):
        row = table[rule]
        assert row["points"] == 4 and row["mean"] == 5.25 and row["median"] == 4.5
        assert row["share_exact"] == 0.5 and row["share_within_1"] == 0.75
        assert row["sigma"] in (0.01, 0.02) and row["visible"] == 3.5 and row["n_scores"] == 80
        assert row["k"] == 4 and row["data"] == "sphere" and row["paper"] == 11


def test_the_published_row_is_the_uncentred_gap_at_its_own_sigma():
    row = make()["published"]
    assert row["sigma"] == 0.03 and row["mean"] == 19 and row["share_exact"] == 0 and row["visible"] == 3.0


def test_shares_may_be_counted_against_a_truth_at_each_point():
    row = make(truth=np.array([4, 4, 5, 8]))["recommended"]
    assert row["share_exact"] == 1 and row["k"] == 5.25


def test_where_nobody_knows_the_truth_nothing_is_counted_against_it():
    curve = DimensionCurve((spectrum([4, 4, 5, 8], 0.01),))
    for row in rows(curve, spectrum([4] * 4, 0.03), None, None, **COMMON):
        assert tuple(row) == COLUMNS and row["mean"] > 0
        assert [row[name] for name in ("k", "visible", "share_exact", "share_within_1")] == [None] * 4


def test_rows_are_plain_json():
    assert json.loads(json.dumps(list(make().values())))[0]["data"] == "sphere"


def test_metrics_hold_rows_and_provenance(tmp_path):
    path = write_metrics(tmp_path / "new" / "folder", list(make().values()), note="hello")
    written = json.loads(path.read_text())
    assert path.name == "metrics.json" and [p.name for p in path.parent.iterdir()] == ["metrics.json"]
    assert [row["rule"] for row in written["rows"]][-1] == "published" and written["note"] == "hello"
    assert {"commit", "python", "torch", "numpy", "processor", "cores", "threads"} <= set(written["provenance"])
    assert written["provenance"]["threads"] == 1


def test_metrics_that_cannot_be_written_leave_the_old_ones(tmp_path):
    path = write_metrics(tmp_path, [])
    before = path.read_text()
    with pytest.raises(TypeError):
        write_metrics(tmp_path, [{"value": object()}])
    assert path.read_text() == before


def test_the_commit_is_a_hash_or_unknown():
    assert re.fullmatch(r"[0-9a-f]{10}\+?|unknown", commit())
    assert provenance()["commit"] == commit()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A project with a copy of records.py in it, as in dimlib; and what ``commit`` returns there."""
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    def ask(place="dimlib/book/records.py"):
        monkeypatch.setattr(records, "__file__", str(tmp_path / place))
        return commit()

    for name in ("dimlib/book/records.py", "notebooks/one.ipynb", "config/full.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    return tmp_path, ask


@pytest.mark.parametrize("changed", ["dimlib/book/records.py", "notebooks/one.ipynb", "config/full.yaml", "new.py"])
def test_a_plus_marks_a_changed_checkout(checkout, changed):
    folder, ask = checkout
    assert re.fullmatch(r"[0-9a-f]{10}", ask())
    (folder / changed).write_text("changed")
    assert re.fullmatch(r"[0-9a-f]{10}\+", ask())


def test_a_library_installed_inside_a_project_does_not_have_its_commit(checkout):
    folder, ask = checkout
    (folder / ".gitignore").write_text(".venv")
    (folder / ".venv/dimlib").mkdir(parents=True)
    (folder / ".venv/dimlib/records.py").write_text("x")
    assert ask(".venv/dimlib/records.py") == "unknown"


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.CalledProcessError(128, "git")])
def test_outside_a_checkout_the_commit_is_unknown(monkeypatch, error):
    def git(*_, **__):
        raise error

    monkeypatch.setattr(records.subprocess, "run", git)
    assert commit() == "unknown"
