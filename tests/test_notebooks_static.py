"""The committed notebooks: run top to bottom, clean, small, and part of the book."""

import base64
import copy
import re
import struct
from functools import cache
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import yaml
from machine_path import MACHINE_PATH

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@cache
def read(path):
    """A notebook, which no test changes."""
    nb = nbformat.read(path, as_version=4)
    nbformat.validate(nb)
    return nb


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def nb(path):
    return read(path)


def tagged(nb, tag):
    return [cell for cell in nb.cells if tag in cell.metadata.get("tags", [])]


def outputs(nb):
    return [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]


def test_book_and_folder_hold_the_same_notebooks():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    in_book = {chapter for chapter in chapters if chapter.startswith("notebooks/")}
    assert in_book == {f"notebooks/{path.stem}" for path in NOTEBOOKS}


def test_ran_top_to_bottom(nb):
    code = [c for c in nb.cells if c.cell_type == "code" and c.source.strip()]
    counts = [c.execution_count for c in code if "skip-execution" not in c.metadata.get("tags", [])]
    assert counts == list(range(1, len(counts) + 1)), "run it again: make notebooks"


def test_ran_with_its_defaults(nb):
    assert len(tagged(nb, "parameters")) == 1
    assert not tagged(nb, "injected-parameters")


def test_no_error_and_nothing_on_stderr(nb):
    assert not [o for o in outputs(nb) if o.output_type == "error" or o.get("name") == "stderr"]


def test_metadata_is_clean(nb):
    assert nb.metadata.kernelspec.name == "python3"
    assert not {"papermill", "widgets"} & set(nb.metadata)
    assert "version" not in nb.metadata.language_info
    assert not [c for c in nb.cells if {"papermill", "execution"} & set(c.metadata)]


def test_no_path_of_the_machine_that_ran_it(nb):
    nb = copy.deepcopy(nb)
    for output in outputs(nb):
        output.get("data", {}).pop("image/png", None)  # base64 may spell anything
    found = MACHINE_PATH.search(nbformat.writes(nb))
    assert not found, found.group()


def test_small_enough_to_read_in_a_browser(path):
    assert path.stat().st_size < 1_500_000


# A page of the book shows 79 columns: a longer line scrolls sideways.
WIDTH, HEIGHT = 79, 30
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}


def shown_code(nb):
    """The source of each code cell but the parameters, whose lines papermill reads."""
    for cell in nb.cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            yield cell.source, bool(HIDDEN & set(cell.metadata.get("tags", [])))


def test_no_line_of_code_scrolls_sideways(path, nb):
    long = [line for source, _ in shown_code(nb) for line in source.splitlines() if len(line) > WIDTH]
    assert not long


def test_no_cell_hides_its_value_behind_a_semicolon(path, nb):
    """nbval runs cells without a history, and there a semicolon hides nothing."""
    assert not [source for source, _ in shown_code(nb) if source.rstrip().endswith(";")]


def test_no_cell_holds_a_control_character(path, nb):
    r"""Such as the bell that "\approx" becomes in a string that is not raw."""
    assert not [c for cell in nb.cells for c in cell.source if ord(c) < 32 and c not in "\n\t"]


def test_a_visible_code_cell_fits_on_a_screen(path, nb):
    assert not [source for source, hidden in shown_code(nb) if not hidden and len(source.splitlines()) > HEIGHT]


COMMAND = re.compile(r"(papermill|run_notebook\.py) (notebooks/\w+)\.ipynb ((?:.|\\\n)*?)(?:`|\n|$)")


def figures(nb):
    """The ids of the cells whose picture is a figure of the book."""
    return [cell.id for cell, below in pairwise(nb.cells)
            if below.source.startswith("*What to see") and "image/png" in str(cell.get("outputs"))]


def test_the_text_refers_to_each_figure_by_its_number(path, nb):
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    for cell_id in figures(nb):
        assert cell_id.startswith(path.stem[:2]) and f"{{numref}}`fig-{cell_id}`" in text, cell_id


def test_the_pictures_can_be_read_on_a_phone(nb):
    for output in outputs(nb):
        if png := output.get("data", {}).get("image/png"):
            width, _ = struct.unpack(">II", base64.b64decode(png)[16:24])
            assert width <= 740  # pixels: half the size on a phone


def shown_commands():
    pages = {path.name: "\n".join(cell.source for cell in read(path).cells
                                  if cell.cell_type == "markdown") for path in NOTEBOOKS}
    pages |= {path.name: path.read_text() for path in (ROOT / "README.md", *ROOT.glob("book/*.md"))}
    for page, text in pages.items():
        for program, notebook, rest in COMMAND.findall(text):
            yield pytest.param(program, notebook, rest, id=f"{page}: {program} {notebook}")


@pytest.mark.parametrize("program, notebook, rest", shown_commands())
def test_a_command_that_the_book_shows_names_parameters_that_exist(program, notebook, rest):
    (cell,) = tagged(read(ROOT / f"{notebook}.ipynb"), "parameters")
    known = set(re.findall(r"^(\w+):", cell.source, re.MULTILINE))
    named = re.findall(r"-p (\w+)" if program == "papermill" else r"(\w+)=", rest)
    assert set(named) <= known


TEACHING = (ROOT / "book" / "teaching.md").read_text()
NUMBERS = {word: i for i, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight"), 1)}


def test_the_teaching_page_has_each_chapter_and_its_time(path, nb):
    link = rf"\[[^\]]*\]\(\.\./notebooks/{path.stem}\.ipynb\)"
    ((plan, row, home),) = re.findall(rf"\| {link} \| ([^|]*) \| ([^|]*) \| (.*) \|", TEACHING)
    assert path.stem < "08" or f" *It adds*: {home}." in nb.cells[0].source
    stated = r"\*Time\*: (\d+ minutes to read[^;]*); runs (?:for|in) ([^.]*)\."
    plans, runs = re.search(stated, nb.cells[0].source).groups()
    assert plans.replace("minutes to read", "min") == plan
    if row in ("seconds", "half a minute"):
        assert runs == row
    else:
        words = [word for word in re.findall(r"\w+", runs.split(" minute")[0]) if word in NUMBERS]
        longest = NUMBERS[words[-1]] if words else 1  # "under a minute"
        assert re.findall(r"\d+", row) == [str(longest)]


def test_the_teaching_page_lists_the_exercises_without_a_solution():
    text = "\n".join(cell.source for path in NOTEBOOKS for cell in read(path).cells)
    exercises = set(re.findall(r"\{exercise\}\n:label: ([\w-]+)", text))
    solved = set(re.findall(r"\{solution(?:-start)?\} ([\w-]+)", text))
    (listed,) = re.findall(r"\*\*no solution in the book\*\* \|(.*)\|", TEACHING)
    assert exercises and exercises - solved == set(re.findall(r"`([\w-]+)`", listed))


@pytest.mark.parametrize("path", NOTEBOOKS[:5], ids=lambda path: path.stem)
def test_a_quiz_has_five_questions_with_one_right_choice_each(path):
    (quiz,) = [c.source for c in read(path).cells if c.source.startswith("## Quiz\n")]
    before, *questions = re.split(r"^\*\*Question \d\.\*\*", quiz, flags=re.MULTILINE)
    assert len(questions) == 5 and "dropdown" not in before
    for question in questions:
        answers = re.findall(r"^:::\{dropdown\} .+\n(Right: because|No: )", question, re.MULTILINE)
        assert len(answers) == question.count("{dropdown}") >= 3
        assert answers.count("Right: because") == 1


def test_the_afternoon_is_marked_and_takes_four_hours_at_most():
    """The parts of the table of contents say which chapters; the teaching page says how long they take."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    parts = [part for part in toc["parts"] if part["caption"].startswith("The afternoon")]
    chapters = [chapter["file"] for part in parts for chapter in part["chapters"]]
    plans = [re.search(rf"\(\.\./{chapter}\.ipynb\) \| ([^|]*) \|", TEACHING)[1] for chapter in chapters]
    minutes = sum(int(re.findall(r"\d+", plan)[-1]) for plan in plans)  # the last: without the proofs
    assert 0 < minutes <= 240
    intro = (ROOT / "book" / "intro.md").read_text()
    paragraph = re.search(r"^\*\*In an afternoon\*\*.*?\n\n", intro, re.MULTILINE | re.DOTALL)[0]
    assert re.findall(r"\.\./(notebooks/\w+)\.ipynb", paragraph) == chapters
    assert f"{minutes} minutes" in paragraph and f"afternoon: {minutes} minutes" in TEACHING


def test_a_chapter_ends_with_where_to_go_next(nb):
    assert re.search(r"\n\n\*Where next\*: [^\n]*\[[^\n]*\]\([^\n]*\)[^\n]*$", nb.cells[-1].source)
