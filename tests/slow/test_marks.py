"""nbgrader gives full marks to a student who has answered everything, and none to one who has answered nothing,
even if that one has emptied the checks.

With the extra `teach` only: make test-slow
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader", reason='needs the extra: pip install -e ".[teach]" -c constraints.txt')
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHAPTER = "01_manifolds_and_noise"


def hand_in(course, who, nb):
    folder = course / "submitted" / who / CHAPTER
    folder.mkdir(parents=True)
    nbformat.write(nb, folder / f"{CHAPTER}.ipynb")


def test_solved_copies_get_full_marks_and_unsolved_ones_none(tmp_path):
    subprocess.run([sys.executable, ROOT / "workflow/student.py", tmp_path], check=True)
    course = tmp_path / "lecturer"
    unsolved = nbformat.read(tmp_path / "student" / "notebooks" / f"{CHAPTER}.ipynb", as_version=4)
    copies = {who: nbformat.from_dict(unsolved) for who in ("solved", "unsolved", "emptied")}
    answers = {cell.id: cell for cell in nbformat.read(course / "notebooks" / f"{CHAPTER}.ipynb", as_version=4).cells}
    for cell in copies["solved"].cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.source = answers[cell.id].source
    for cell in copies["emptied"].cells:
        if "check" in cell.metadata.get("tags", []):
            cell.source = ""
    for who, nb in copies.items():
        hand_in(course, who, nb)

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic
    for command in (["generate_assignment", CHAPTER], ["autograde", CHAPTER, "--Execute.timeout=600"], ["export"]):
        done = subprocess.run([sys.executable, "-m", "nbgrader", *command], cwd=course, env=os.environ | {"PATH": path},
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    with open(course / "grades.csv", newline="") as file:
        scores = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert scores == {"solved": (2, 2), "unsolved": (0, 2), "emptied": (0, 2)}
