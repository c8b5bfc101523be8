"""The slides of the lecture: they build, they need no network, and they keep to the plan on the teaching page."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SLIDES = ROOT / "book" / "slides"
SOURCE = (SLIDES / "index.md").read_text(encoding="utf-8")
MINUTES = [(int(start), int(end)) for start, end in re.findall(r"^Minutes (\d+)–(\d+)$", SOURCE, re.MULTILINE)]


def build(source, target):
    command = [sys.executable, "-m", "sphinx", "-b", "revealjs", "-n", "-W", "-q", "-c", SLIDES, source, target]
    return subprocess.run(command, capture_output=True, text=True)


def test_they_build_and_need_no_network(tmp_path):
    done = build(SLIDES, tmp_path)
    assert not done.returncode, done.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:link|script|img)\b[^>]*?(?:href|src)="(?!data:)([^"?]*)', page)
    assert any("mathjax" in path for path in loaded)
    assert not [path for path in loaded if not (tmp_path / path).is_file()]
    assert page.count('<img src="data:image/png;base64,') == SOURCE.count("{cell-figure}") > 0


def test_a_figure_that_is_gone_is_named(tmp_path):
    (tmp_path / "index.md").write_text("# Title\n\n```{cell-figure} 01_manifolds_and_noise gone\n```\n")
    done = build(tmp_path, tmp_path / "built")
    assert done.returncode and "01_manifolds_and_noise.ipynb must have a cell gone" in done.stderr


def test_each_slide_has_its_minutes_and_together_they_are_the_plan():
    assert len(MINUTES) == len(re.findall("^##? ", SOURCE, re.MULTILINE)) == SOURCE.count("{revealjs-notes}")
    assert 25 <= len(MINUTES) <= 30
    assert [start for start, _ in MINUTES] == [0] + [end for _, end in MINUTES[:-1]]
    plan = re.findall(r"^\| (\d+)–(\d+) \|", (ROOT / "book" / "teaching.md").read_text(), re.MULTILINE)
    lecture = plan[: 1 + [end for _, end in plan].index("90")]
    assert {int(start) for start, _ in lecture} <= {start for start, _ in MINUTES}
    assert MINUTES[-1][1] == 90
