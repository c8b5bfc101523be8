"""The student edition holds no solution, and its checks tell a right answer from a wrong one and from none."""

import ast
import contextlib
import io
import re
import runpy
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import matplotlib
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
sys.path.insert(0, str(ROOT / "workflow"))  # where a script finds its neighbours
script = runpy.run_path(str(ROOT / "workflow" / "student.py"))
sys.path.remove(str(ROOT / "workflow"))
student, unsolved, lecturer, tagged = script["student"], script["unsolved"], script["lecturer"], script["tagged"]

EXERCISES = [pytest.param(name, answer, check, id=answer.id)
             for name, nb in NOTEBOOKS.items() for answer, check in pairwise(nb.cells) if tagged(answer, "solution")]


def text_of(nb):
    return "\n".join(cell.source for cell in nb.cells)


def lines_of_solutions(nb):
    """The lines of all solutions, found line by line, and not with the code that makes the edition."""
    end = None  # the line that ends the solution that we are in
    for cell in nb.cells:
        if tagged(cell, "solution"):
            yield from re.search(r" *### BEGIN SOLUTION.*### END SOLUTION", cell.source, re.DOTALL)[0].splitlines()
        elif not tagged(cell, "check"):
            for line in cell.source.splitlines():
                if end is None and (opened := re.match(r"([`:]{3,})\{solution(-start)?\}", line)):
                    end = "```{solution-end}" if opened[2] else opened[1]
                if end:
                    yield line
                if line == end:
                    end = None


def counted(lines):
    return Counter(line for line in lines if line.strip("`: "))  # without empty lines and the ends of directives


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_student_edition_is_the_chapter_without_the_solutions(name):
    nb, edition = NOTEBOOKS[name], unsolved(NOTEBOOKS[name])
    solutions = counted(lines_of_solutions(nb))
    stubs = [line for line in text_of(edition).splitlines() if "raise NotImplementedError" in line]
    chapter = counted(script["RUNNING"].sub(script["RUN"], text_of(nb)).splitlines())
    assert solutions and solutions <= chapter
    assert counted(text_of(edition).splitlines()) == chapter - solutions + counted(stubs)
    assert len(stubs) == len([cell for cell in nb.cells if tagged(cell, "solution")])
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in edition.cells)
    nbformat.validate(edition)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_its_text_is_plain_markdown_and_nothing_is_lost(name):
    """JupyterLab shows MyST as it is written: an answer of a quiz would be open, and a reference a name in braces."""
    edition = student(name)
    text = "\n".join(cell.source for cell in edition.cells if cell.cell_type == "markdown")
    assert not re.search(r"^[`:]{3,}\{|^:{3,}|^:\w+:|\{[\w:]+\}`|^\([\w-]+\)=", text, re.MULTILINE)
    assert not re.search(r"\\RR|\\E\b|\(\.\./book/(?!figures)", text)
    assert text.count("<details>") == text.count("</details>") == text_of(unsolved(NOTEBOOKS[name])).count("{dropdown}")
    assert len(re.findall(r"^\$\$$", text, re.MULTILINE)) % 2 == 0
    changed = re.compile(r"^[`:]{3,}|^:\w+:|\{[\w:]+\}`|\\[A-Za-z]|\(\.\./book/|^\*What to see|^\([\w-]+\)=")
    kept = [line for line in text_of(unsolved(NOTEBOOKS[name])).splitlines() if not changed.search(line)]
    assert len(kept) > 100 and not counted(kept) - counted(text_of(edition).splitlines())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_its_figures_have_numbers_and_each_reference_names_one(name):
    text = "\n".join(cell.source for cell in student(name).cells if cell.cell_type == "markdown")
    numbered = re.findall(r"^\*+Figure (\d+)\.", text, re.MULTILINE)
    assert numbered == [str(i) for i in range(1, len(numbered) + 1)]
    assert {*re.findall(r"Figure (\d+)(?!\d|\.| of chapter)", text)} <= {*numbered}


def test_folded_code_is_folded_in_jupyterlab_too():
    cells = [cell for name in NOTEBOOKS for cell in student(name).cells]
    folded = [cell for cell in cells if tagged(cell, "hide-input")]
    assert folded == [cell for cell in cells if cell.metadata.get("jupyter") == {"source_hidden": True}] != []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_lecturer_has_a_solution_of_each_exercise(name):
    text = text_of(lecturer(NOTEBOOKS[name]))
    exercises = re.findall(r"\{exercise\}\n:label: (\S+)", text)
    assert exercises == re.findall(r"\{solution(?:-start)?\} (\S+)", text)


def test_each_solution_for_lecturers_belongs_to_an_exercise_without_one():
    book = "\n".join(map(text_of, NOTEBOOKS.values()))
    for path in script["ONLY_FOR_LECTURERS"].glob("*"):
        assert f"{{exercise}}\n:label: {path.stem}\n" in book
        assert f"{{solution}} {path.stem}\n" not in book


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_chapter_has_four_exercises_and_two_of_them_are_checked(name):
    text = text_of(NOTEBOOKS[name])
    assert len(re.findall(r"\{exercise\}\n:label: nb", text)) >= 4
    assert len([e for e in EXERCISES if e.values[0] == name]) >= 2


def test_each_answer_has_its_check_and_each_check_its_answer():
    assert all(tagged(exercise.values[2], "check") for exercise in EXERCISES)
    checks = [cell for nb in NOTEBOOKS.values() for cell in unsolved(nb).cells if tagged(cell, "check")]
    labels = [cell.metadata.nbgrader.grade_id for cell in checks]
    assert len(set(labels)) == len(EXERCISES) and all(label.startswith("nb") for label in labels)


def test_the_teaching_page_lists_the_checked_exercises():
    (row,) = re.findall(r"\| \*\*checked by a program\*\* \|(.*)\|", (ROOT / "book" / "teaching.md").read_text())
    checks = [cell for nb in NOTEBOOKS.values() for cell in unsolved(nb).cells if tagged(cell, "check")]
    assert re.findall(r"`([\w-]+)`", row) == [cell.metadata.nbgrader.grade_id for cell in checks]


def names(tree, kind):
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, kind)}
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    if kind is ast.Load:
        found -= arguments
    else:
        found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        found |= {(node.asname or node.name).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.alias)}
    return found


def before(name, answer, check):
    """What the chapter has made when the check runs: from the cells that define what the two cells use."""
    code = [cell.source for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]
    tree = ast.parse(answer.source + "\n" + check.source)
    needed, chosen = names(tree, ast.Load) - names(tree, ast.Store), []
    for source in reversed(code[:code.index(answer.source)]):
        tree = ast.parse(source)
        if names(tree, ast.Store) & needed:
            needed |= names(tree, ast.Load)
            chosen.append(source)
    namespace = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec("\n".join(reversed(chosen)), namespace)
    return namespace


@pytest.mark.slow
@pytest.mark.parametrize("name, answer, check", EXERCISES)
def test_a_check_knows_right_from_wrong_and_from_missing(name, answer, check, capsys):
    matplotlib.use("Agg")
    namespace = before(name, answer, check)
    (function,) = ast.parse(answer.source).body
    exec(answer.source, namespace)
    right = namespace[function.name]
    exec(check.source, namespace)
    assert capsys.readouterr().out == "Right.\n"

    namespace[function.name] = lambda *given, **named: 1.5 * right(*given, **named)
    with pytest.raises(AssertionError, match="Hint"):
        exec(check.source, namespace)

    exec(script["stub"](answer.source), namespace)
    with pytest.raises(NotImplementedError):
        exec(check.source, namespace)
