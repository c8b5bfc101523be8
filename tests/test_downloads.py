"""The zip of a chapter holds its notebook and what the notebook reads. It is made here without building the book."""

import re
import runpy
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
write_chapter = runpy.run_path(str(ROOT / "book" / "_ext" / "downloads.py"))["write_chapter"]


def test_half_of_the_chapters_read_tables():
    assert len([path for path in NOTEBOOKS if "../results/" in path.read_text()]) > len(NOTEBOOKS) / 2


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_unpacked_chapter_finds_its_tables_and_pictures(notebook, tmp_path):
    write_chapter(notebook, tmp_path / "chapter.zip")
    zipfile.ZipFile(tmp_path / "chapter.zip").extractall(tmp_path)
    found = tmp_path / "notebooks" / notebook.name
    assert found.read_bytes() == notebook.read_bytes()
    for name in re.findall(r"\.\./(?:results|book/figures)/[\w./-]+", found.read_text()):
        copy, original = ((folder / name).resolve() for folder in (found.parent, notebook.parent))
        assert copy.read_bytes() == original.read_bytes()
