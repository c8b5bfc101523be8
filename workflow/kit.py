"""The workshop kit: one zip with all that a participant needs, for a machine without this repository and without make.

    python workflow/kit.py ZIP

It holds START.md, check_setup.ipynb, the student edition of the notebooks, the tables and pictures that they read,
the wheel of dimlib, and the other packages to install, with the versions of constraints.txt.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

import nbformat
from plain import BOOK
from student import student

ROOT = Path(__file__).parents[1]
BESIDES = ["ipykernel", "jupyterlab", "matplotlib", "pandas", "scipy"]  # what the notebooks use, and dimlib does not


def build_wheel(folder: Path) -> Path:
    """Build from a copy: setuptools leaves its files beside the sources, and finds them again the next time."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "dimlib", folder / "dimlib", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-P", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                    "--wheel-dir", folder, folder], check=True)        # -P: no pip.py of the current folder
    (wheel,) = folder.glob("*.whl")
    return wheel


def requirements(wheel: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(re.findall(r"^([\w-]+)(==.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    names = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]] + BESIDES
    return "\n".join([f"./{wheel}", *(name + pins.get(name, "") for name in sorted(names))]) + "\n"


def main(target: str) -> None:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as kit:
            kit.write(wheel, f"dimlib-kit/{wheel.name}")
            kit.writestr("dimlib-kit/requirements.txt", requirements(wheel.name))
            for path in (ROOT / "workflow/kit/START.md", ROOT / "workflow/kit/check_setup.ipynb"):
                kit.write(path, f"dimlib-kit/{path.name}")
            for path in sorted([*ROOT.glob("results/*.csv"), *ROOT.glob("book/figures/*.png")]):
                kit.write(path, f"dimlib-kit/{path.relative_to(ROOT)}")
            for chapter in BOOK:
                kit.writestr(f"dimlib-kit/notebooks/{chapter}.ipynb", nbformat.writes(student(chapter)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
