"""The student edition holds no solution, and its checks tell a right answer from a wrong one and from none."""

import ast
import builtins
import contextlib
import io
import re
import runpy
import symtable
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
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


def test_both_editions_have_what_their_notebooks_read(tmp_path):
    script["main"](str(tmp_path))
    for whose in ("student", "lecturer"):
        notebooks = {path.stem: path.read_text() for path in (tmp_path / whose / "notebooks").glob("*.ipynb")}
        named = {*re.findall(r"\.\./((?:results|book/figures)/[\w.-]+)", "\n".join(notebooks.values()))}
        assert notebooks.keys() == NOTEBOOKS.keys() and len(named) > 20
        assert all((tmp_path / whose / file).is_file() for file in named)


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


def defined_and_needed(source):
    """The global names that a cell defines, and those that it needs from other cells."""
    tables = [symtable.symtable(source, "cell", "exec")]
    defined = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    needed = set()
    for table in tables:
        tables += table.get_children()                                     # of functions, classes, comprehensions
        needed |= {s.get_name() for s in table.get_symbols()
                   if s.is_referenced() and (s.is_global() or table is tables[0])}
    return defined, needed - defined - {*dir(builtins), "__name__"}


def own_cells(edition):
    """The code cells of a student edition that are neither an exercise nor its check."""
    return [cell for cell in edition.cells
            if cell.cell_type == "code" and not tagged(cell, "solution") and not tagged(cell, "check")]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_cell_of_the_student_edition_needs_what_only_a_solution_defines(name):
    """Neither what a cell defines that is left out, nor what an exercise defines, but for its own check."""
    known, stub = set(), set()
    for cell in unsolved(NOTEBOOKS[name]).cells:
        if cell.cell_type == "code":
            defined, needed = defined_and_needed(cell.source)
            own = stub if tagged(cell, "check") else set()
            assert needed <= known | own, cell.source
            if tagged(cell, "solution"):
                stub = defined
            elif not tagged(cell, "check"):
                known |= defined


def before(name, answer, check):
    """What the student edition has made when the check runs: from the cells that define what the two cells use."""
    edition = unsolved(NOTEBOOKS[name])
    end = [cell.id for cell in edition.cells].index(answer.id)
    earlier = own_cells(nbformat.from_dict({**edition, "cells": edition.cells[:end]}))
    needed, chosen = defined_and_needed(answer.source + "\n" + check.source)[1], []
    for cell in reversed(earlier):
        defined, more = defined_and_needed(cell.source)
        if defined & needed:
            needed |= more
            chosen.append(cell.source)
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


FEW = {"dim": 3, "ambient_dim": 20, "n_data": 500, "steps": 60, "n_points": 5}


@pytest.mark.slow
@pytest.mark.parametrize("name, changed", [
    ("01_manifolds_and_noise", {}), ("02_the_theorem", {"n_points": 16}), ("07_spheres", FEW), ("19_relatives", FEW)])
def test_in_a_whole_chapter_only_the_exercises_stop_a_student(name, changed, tmp_path, monkeypatch):
    """All cells run one after the other; those that check a missing answer stop, and no other."""
    matplotlib.use("Agg")
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    edition, namespace, stopped = student(name), {"__name__": "__main__"}, []
    with contextlib.redirect_stdout(io.StringIO()), matplotlib.rc_context():
        for cell in (cell for cell in edition.cells if cell.cell_type == "code"):
            try:
                exec(cell.source, namespace)
            except NotImplementedError:
                stopped.append(cell.id)
            if tagged(cell, "parameters"):
                namespace |= changed | {"out_dir": str(tmp_path)}
    checks = [cell.id for cell in edition.cells if tagged(cell, "check")]
    assert checks == stopped and len(checks) == len([e for e in EXERCISES if e.values[0] == name])
