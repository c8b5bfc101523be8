"""The workshop kit holds what it promises, and nothing of the machine that made it."""

import importlib.metadata
import io
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pytest
from machine_path import MACHINE_PATH

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))  # where a script finds its neighbours
student = runpy.run_path(str(ROOT / "workflow" / "student.py"))["student"]
sys.path.remove(str(ROOT / "workflow"))


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """Name in the zip to content."""
    folder = tmp_path_factory.mktemp("kit")
    (folder / "pip.py").write_text("raise SystemExit('the wrong pip')")    # which is not executed
    target = folder / "made" / "dimlib-kit.zip"
    subprocess.run([sys.executable, ROOT / "workflow/kit.py", target], check=True, cwd=folder)
    with zipfile.ZipFile(target) as made:
        return {name: made.read(name) for name in made.namelist()}


def test_it_holds_all_that_a_participant_needs(kit):
    files = {name.removeprefix("dimlib-kit/") for name in kit}
    (wheel,) = {name for name in files if name.endswith(".whl")}
    assert files == {wheel, "START.md", "requirements.txt", "check_setup.ipynb"} | {
        str(path.relative_to(ROOT))
        for pattern in ("notebooks/*.ipynb", "results/*.csv", "book/figures/*.png") for path in ROOT.glob(pattern)}


def test_its_notebooks_find_the_tables_that_they_read(kit):
    read = {(name, table) for name, content in kit.items()
            for table in re.findall(rb"\.\./(results/\w+\.csv)", content)}
    assert read and all(f"dimlib-kit/{table.decode()}" in kit for _, table in read)


def test_its_notebooks_find_the_pictures_that_they_show(kit):
    shown = {picture for content in kit.values() for picture in re.findall(rb"!\[[^\]]*\]\(\.\./([^)]+)\)", content)}
    assert shown and all(f"dimlib-kit/{picture.decode()}" in kit for picture in shown)


def test_its_notebooks_are_the_student_edition(kit):
    found = {name: content.decode() for name, content in kit.items() if "/notebooks/" in name}
    assert found == {f"dimlib-kit/notebooks/{path.name}": nbformat.writes(student(path.stem))
                     for path in ROOT.glob("notebooks/*.ipynb")}


def test_its_first_notebook_says_that_everything_works(kit, tmp_path, monkeypatch, capsys):
    """Run in the unpacked kit, as if JupyterLab and whatever else this environment lacks were installed."""
    for name, content in kit.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    tested = dict(re.findall(r"^([\w-]+)==(.+)$", kit["dimlib-kit/requirements.txt"].decode(), re.MULTILINE))
    installed = importlib.metadata.version

    def version(name):
        try:
            return installed(name)
        except importlib.metadata.PackageNotFoundError:
            return tested[name]

    matplotlib.use("Agg")
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    monkeypatch.chdir(tmp_path / "dimlib-kit")
    namespace = {}
    for cell in nbformat.reads(Path("check_setup.ipynb").read_text(), as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
    assert capsys.readouterr().out.endswith("\nEverything works.\n")


def test_its_requirements_are_its_wheel_and_the_tested_versions(kit):
    wheel, *others = kit["dimlib-kit/requirements.txt"].decode().splitlines()
    assert f"dimlib-kit/{wheel.removeprefix('./')}" in kit
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    assert any(line.startswith("torch") for line in others)
    assert set(others) <= set(tested) or not any("==" in line for line in tested)  # the weekly run drops them


def test_no_file_names_the_machine_that_made_it(kit):
    (wheel,) = [zipfile.ZipFile(io.BytesIO(content)) for name, content in kit.items() if name.endswith(".whl")]
    texts = {name: content for name, content in kit.items() if not name.endswith(".whl")}
    texts |= {name: wheel.read(name) for name in wheel.namelist()}
    found = {name: match.group() for name, content in texts.items()
             if (match := MACHINE_PATH.search(content.decode(errors="replace")))}  # pictures can name it, too
    assert not found
