"""The student edition and the lecturer's edition of all chapters, from the same notebooks.

    python workflow/student.py FOLDER

FOLDER/student    notebooks/, one notebook a chapter, for the students: no solutions, no outputs
FOLDER/lecturer   notebooks/ with all solutions, also those in workflow/lecturer/ that the book does not have, and
                  source/ for nbgrader, which marks what the students hand in

Both have the tables and the pictures that the notebooks name, in results/ and in book/figures/.

In a chapter the solution of an exercise is a directive `{solution}`, or all that is between `{solution-start}` and
`{solution-end}`. Two cells between these can have a tag:

`solution`   defines one function. The lines between `### BEGIN SOLUTION` and `### END SOLUTION` are the answer. In the
             student edition one line replaces them, which raises NotImplementedError.
`check`      calls that function and compares it with what dimlib computes. It stays in the student edition. There
             nbgrader knows it by the label of the exercise: one point if it runs without an error.

The student edition has plain Markdown (workflow/plain.py), because its readers do not have the book's software.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from plain import BOOK, ROOT, plain

ONLY_FOR_LECTURERS = Path(__file__).parent / "lecturer"  # one solution a file, LABEL.md
EXERCISE = re.compile(r"^(`{3,}|:{3,})\{exercise\}\n:label: (\S+)\n.*?^\1$", re.MULTILINE | re.DOTALL)
CLOSED = re.compile(r"^(`{3,}|:{3,})\{solution\}.*?^\1$\n*", re.MULTILINE | re.DOTALL)
GATE = re.compile(r"^`{3,}\{solution-(?:start\} *(\S+)|end\})\n.*?^`{3,}$\n*", re.MULTILINE | re.DOTALL)
RUNNING = re.compile(r"^:::\{dropdown\} Running this notebook\n.*?^:::$", re.MULTILINE | re.DOTALL)
RUN = """:::{dropdown} Running this notebook
Change the numbers in the first code cell, and run all cells again. At an exercise without an answer Jupyter stops with
`NotImplementedError`. The cells above it have run.
:::"""
ANSWER = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION$", re.MULTILINE | re.DOTALL)


def tagged(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def stub(source: str) -> str:
    """The cell of a solution without its answer."""
    text, n_answers = ANSWER.subn(r"\1raise NotImplementedError  # your answer", source)
    if n_answers != 1:
        raise ValueError(f"a solution has one answer, between ### BEGIN SOLUTION and ### END SOLUTION:\n{source}")
    return text


def marked(label: str) -> dict:
    """What nbgrader wants to know of a check."""
    return {"schema_version": 3, "cell_type": "code", "grade_id": label, "points": 1,
            "grade": True, "locked": True, "solution": False, "task": False}


def unsolved(nb: NotebookNode) -> NotebookNode:
    """A chapter without solutions and outputs, with stubs, and with checks that nbgrader can mark."""
    cells = []
    label = None  # of the solution that we are in
    for cell in nb.cells:
        cell = nbformat.from_dict(cell)
        if cell.cell_type == "markdown":
            pieces = GATE.split(CLOSED.sub("", RUNNING.sub(RUN, cell.source)))  # text, label, text, label, ..., text
            kept = []
            for i, piece in enumerate(pieces):
                if i % 2:
                    label = piece
                elif label is None:
                    kept.append(piece)
            cell.source = "".join(kept).strip("\n")
            keep = bool(cell.source)
        else:
            cell.outputs, cell.execution_count = [], None
            if tagged(cell, "solution"):
                cell.source = stub(cell.source)
            elif tagged(cell, "check"):
                cell.metadata.nbgrader = marked(label)
            keep = label is None or tagged(cell, "solution") or tagged(cell, "check")
        if keep:
            cells.append(cell)
    return nbformat.from_dict({**nb, "cells": cells})


def student(chapter: str) -> NotebookNode:
    """The student edition of a chapter, such as 01_manifolds_and_noise."""
    return plain(unsolved(BOOK[chapter]), chapter)


def lecturer(nb: NotebookNode) -> NotebookNode:
    """A chapter with the solutions that the book does not have."""
    def solved(exercise: re.Match) -> str:
        path = ONLY_FOR_LECTURERS / f"{exercise[2]}.md"
        if not path.exists():
            return exercise[0]
        return f"{exercise[0]}\n\n:::{{solution}} {exercise[2]}\n:class: dropdown\n{path.read_text().strip()}\n:::"

    cells = [nbformat.from_dict(cell) for cell in nb.cells]
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = EXERCISE.sub(solved, cell.source)
    return nbformat.from_dict({**nb, "cells": cells})


def write(nb: NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)


def main(folder: str) -> None:
    for path in [*ROOT.glob("results/*.csv"), *ROOT.glob("book/figures/*.png")]:
        for whose in ("student", "lecturer"):
            target = Path(folder, whose, path.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for chapter, nb in BOOK.items():
        edition, name = student(chapter), f"{chapter}.ipynb"
        write(edition, Path(folder, "student", "notebooks", name))
        write(lecturer(nb), Path(folder, "lecturer", "notebooks", name))
        if any(tagged(cell, "check") for cell in nb.cells):
            write(edition, Path(folder, "lecturer", "source", chapter, name))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
