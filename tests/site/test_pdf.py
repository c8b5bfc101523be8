"""The PDF of the book, made of two pages: proofs and solutions are open, and links stay inside of it."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "workflow" / "pdf.py"
script = runpy.run_path(str(SCRIPT))
PAGES = ["notebooks/02_the_theorem", "book/bibliography"]

needs = pytest.mark.skipif(script["BROWSER"] is None or not shutil.which("pdftotext"),
                           reason="this machine has no Chromium or no pdftotext; Debian: chromium poppler-utils")


def read(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def pdf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pdf")
    (folder / "book.html").write_text(script["one_page"](PAGES), encoding="utf-8")
    script["browse"](folder / "book.html", f"--print-to-pdf={folder / 'book.pdf'}")
    return folder / "book.pdf"


@pytest.fixture(scope="module")
def text(pdf):
    """The text of each sheet of paper, with one space between words."""
    return [" ".join(sheet.split()) for sheet in read("pdftotext", "-layout", pdf, "-").split("\f")[:-1]]


@needs
def test_proofs_solutions_and_answers_are_open_and_formulas_rendered(text):
    whole = " ".join(text)
    assert "Step 1: the score is a posterior mean" in whole  # of a proof
    assert "The new σ is a quarter of the old one" in whole  # of a solution
    assert "No: the score is a fixed function of" in whole  # of a choice of the quiz
    assert not re.search(r"\\[(\[]|\\begin\{", whole)


@needs
def test_pages_begin_on_a_new_sheet_and_sheets_are_numbered(text):
    starts = ("2. Why the score points straight at the manifold", "Contents The afternoon: theory", "Bibliography")
    chapter, contents, bibliography = (
        next(i for i, sheet in enumerate(text) if sheet.startswith(start)) for start in starts)
    assert 0 == chapter < contents < bibliography
    assert [sheet.split()[-1] for sheet in text] == [str(i + 1) for i in range(len(text))]


@needs
def test_links_lead_to_the_other_page_or_to_the_web(pdf):
    assert "bibliography.id2" in read("pdfinfo", "-dests", pdf)
    links = re.findall(r"Annotation +(\S+)", read("pdfinfo", "-url", pdf))
    assert not [link for link in links if not link.startswith("http")]


@pytest.mark.parametrize("missing, message", [("BROWSER", "apt-get install chromium"), ("SITE", "make book")])
def test_what_is_missing_is_named(missing, message, tmp_path, monkeypatch):
    fresh = runpy.run_path(str(SCRIPT))
    fresh["main"].__globals__.update({"BROWSER": "chromium", missing: None if missing == "BROWSER" else tmp_path})
    with pytest.raises(SystemExit, match=message):
        fresh["main"](str(tmp_path / "book.pdf"))
