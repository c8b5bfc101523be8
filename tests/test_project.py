"""The files around the code agree with each other."""

import csv
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jupyter_book
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dimlib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def direct_dependencies():
    lines = PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra]
    return [Requirement(line) for line in lines]


def test_every_direct_dependency_is_pinned_to_a_version_it_allows():
    pins = constraints()
    if not pins:
        pytest.skip("there are no pins: the weekly run drops them on purpose")
    for requirement in direct_dependencies():
        if requirement.name == "dimlib":
            assert requirement.extras <= set(EXTRAS)
            continue
        (pin,) = pins[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), (
            f"{requirement} is pinned to {pin.version}"
        )


def test_conda_installs_what_pip_installs():
    pip = next(entry["pip"] for entry in ENVIRONMENT if isinstance(entry, dict))
    assert "-c constraints.txt" in pip
    (editable,) = [line for line in pip if line.startswith("-e ")]
    extras = editable.removeprefix("-e .")
    assert set(extras.strip("[]").split(",")) <= set(EXTRAS)
    assert f'pip install -e ".{extras}"' in (ROOT / "Makefile").read_text()


def test_conda_has_a_python_that_the_package_accepts():
    (python,) = [entry for entry in ENVIRONMENT if str(entry).startswith("python=")]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        python.removeprefix("python=")
    )


def test_every_key_of_the_book_configuration_is_known():
    """Jupyter Book ignores a misspelt key without a word."""
    defaults = (Path(jupyter_book.__file__).parent / "default_config.yml").read_text()
    known = yaml.safe_load(defaults) | {"project": "", "bibtex_bibfiles": []}
    for key, value in yaml.safe_load((ROOT / "_config.yml").read_text()).items():
        assert key in known
        if isinstance(value, dict):
            assert set(value) <= set(known[key]), f"in {key}"


def test_one_version_everywhere():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    named = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert PROJECT["version"] == dimlib.__version__ == cited == named


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_an_environment_without_pip_is_made_again(tmp_path):
    """A `make` that was interrupted in its first step leaves one."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    script(tmp_path / ".venv/bin/python", "exit 1")
    script(tmp_path / "python3", 'if [ "$2" = venv ]; then echo "exit 0" > .venv/bin/python; fi')
    done = subprocess.run(["make", ".venv/.installed", "PYTHON=./python3"], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0 and (tmp_path / ".venv/.installed").exists(), done.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_the_number_of_processes_can_be_chosen():
    done = subprocess.run(["make", "-n", "test", "JOBS=7"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count(" -n 7") == 3 and " -n 2" not in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="the script is one of bash")
@pytest.mark.parametrize("there, installs", [
    ((), True), (("chromium",), True), (("pdftotext",), True), (("chromium", "pdftotext"), False)])
def test_continuous_integration_installs_what_is_missing(tmp_path, there, installs):
    for name in ("apt-get", "make"):
        script(tmp_path / name, f"echo {name} $*")
    for name, answer in {"id": 0, "nproc": 7, **dict.fromkeys(there, "")}.items():
        script(tmp_path / name, f"echo {answer}")
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    done = subprocess.run([ROOT / ".ci/run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert ("apt-get install -y -qq chromium poppler-utils\n" in done.stdout) == installs
    assert done.stdout.endswith("make test JOBS=7\n")


def test_continuous_integration_gives_slurm_the_root_that_it_needs():
    steps = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["slow"]["steps"]
    (slurm,) = [step["run"] for step in steps if "test_slurm" in step.get("run", "")]
    assert slurm.startswith("sudo ") and "DIMLIB_SLURM=1" in slurm


FRONT = {"10-sphere": "10-sphere", "50-sphere": "50-sphere", "30-sphere in a union": "union, 30-sphere",
         "strongly curved line": "spaghetti line", "curved surface": "curved surface",
         "images of squares": "squares 20", "images of blobs": "blobs 10"}


def test_the_table_of_the_front_page_is_that_of_the_results():
    page = (ROOT / "book" / "intro.md").read_text()
    _, *shown = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    with open(ROOT / "results" / "summary.csv", newline="") as file:
        rows = {row["data"]: row for row in csv.DictReader(file)}
    assert [name for name, *_ in shown] == [*FRONT] and len(rows) == 15  # "all fifteen", says the page
    for name, *numbers in shown:
        row = rows[FRONT[name]]
        assert numbers == [row["truth"], row["ours"], row["paper"]] and row["visible"] == row["truth"]


def test_the_page_that_says_how_to_cite_agrees_with_the_files_that_programs_read():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    page = " ".join((ROOT / "book" / "cite.md").read_text().split())
    description = PROJECT["description"]
    assert cited["title"] == f"{PROJECT['name']}: {description[0].lower()}{description[1:]}"
    (author,) = cited["authors"]
    said = f"T{author['name'][1:]}. *{cited['title']}.* Version {cited['version']}, "
    assert said in page
    fields = dict(re.findall(r"(\w+) += \{+(.*?)\}+,", page))
    assert (fields["title"], fields["version"]) == (cited["title"], cited["version"])
    (paper,) = cited["references"]
    names = [author["family-names"] for author in paper["authors"]]
    for words in (f"PMLR {paper['volume']}", f"{paper['start']}–{paper['end']}", *names):
        assert words in page
