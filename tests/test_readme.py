"""The ten lines of the README, which are those of the book's first page, run with a shorter training."""

import re
from pathlib import Path

import numpy as np
import pytest

from dimlib.data.manifolds import Sphere

ROOT = Path(__file__).parents[1]


def ten_lines(page: str) -> str:
    return re.search(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)[1]


def test_readme_and_book_show_the_same_lines():
    assert ten_lines("README.md") == ten_lines("book/intro.md")


@pytest.mark.slow
def test_the_ten_lines_find_the_dimension(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "data.npy", 7 * Sphere(2, 12, seed=1, offset=3.0).sample(2000).numpy())  # another scale
    monkeypatch.chdir(tmp_path)
    exec(ten_lines("README.md").replace("DiffusionDimension()", "DiffusionDimension(max_steps=400)"), {})
    assert "dimension 2.00 ± 0.00" in capsys.readouterr().out
