"""The house: a small core on which the rooms stand, packaged whole, quick to import."""

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = {"score", "networks", "training", "sampler", "svd", "curve", "seeds"}
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.glob("dimlib/**/*.py")}


def imported(name: str) -> set[str]:
    """The modules of dimlib that a module imports, at its top or inside of a function."""
    path, found = FILES[name], set()
    package = name.removesuffix(".__init__").split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in FILES else ".".join(base))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "dimlib"}
    return found


def test_no_arrow_leaves_the_core_upwards():
    for module in CORE:
        for target in imported(f"dimlib.{module}"):
            room = target.split(".")[1]
            assert room in CORE | {"machine"}, f"{module} imports {target}"


def test_the_place_below_the_core_imports_nothing_of_the_library():
    for name in (name for name in FILES if name.startswith("dimlib.machine.")):
        assert all(target.startswith("dimlib.machine") for target in imported(name)), name


def test_the_core_has_no_circles():
    """Each module of the core comes after those that it imports, in the order in which it is read."""
    order = ["seeds", "networks", "score", "training", "sampler", "svd", "curve"]
    for i, module in enumerate(order):
        within = {target.split(".")[1] for target in imported(f"dimlib.{module}")} & CORE
        assert within <= set(order[:i]), module


def test_the_core_stays_small():
    lines = {module: len(FILES[f"dimlib.{module}"].read_text().splitlines()) for module in CORE}
    assert sum(lines.values()) <= 850, lines
    assert lines["score"] + lines["sampler"] + lines["svd"] <= 450, lines


def test_nothing_else_stands_at_the_top():
    top = {name.split(".")[1] for name in FILES if name.count(".") == 1}
    assert top == CORE | {"__init__", "__main__"}


def test_the_api_has_one_section_for_each_file():
    page = (ROOT / "book" / "api.md").read_text()
    for name, path in FILES.items():
        if path.name not in ("__init__.py", "__main__.py"):
            assert page.count(f"\n## `{name}`\n") == page.count(f"automodule:: {name}\n") == 1, name


def test_every_folder_is_packaged():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(packages) == {name.removesuffix(".__init__") for name in FILES if name.endswith(".__init__")}


@pytest.mark.slow
def test_a_wheel_brings_every_module(tmp_path):
    """Built from a copy and imported from the wheel alone, away from the checkout."""
    for name in ("dimlib", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", ROOT / name, tmp_path], check=True)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                    "--wheel-dir", tmp_path / "wheels", tmp_path], check=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    modules = [name for name in FILES if not name.endswith("__main__")]
    (tmp_path / "elsewhere").mkdir()
    code = f"import dimlib, importlib; [importlib.import_module(n) for n in {modules}]; print(dimlib.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "elsewhere", capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "site" / "dimlib" / "__init__.py")


def test_importing_dimlib_loads_nothing_heavy():
    """torch takes nearly all of the time; scikit-learn and others are loaded when they are used."""
    heavy = ["sklearn", "scipy", "pandas", "matplotlib", "skdim", "diffusers", "torch._dynamo"]
    code = f"import sys, dimlib; print(*sorted(set({heavy}) & set(sys.modules)))"
    without = f"import sys, torch; print(*sorted(set({heavy}) & set(sys.modules)))"
    ours, torchs = (subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout
                    for c in (code, without))
    assert ours == torchs


def test_what_dimlib_hands_on_is_there():
    import dimlib

    assert all(hasattr(dimlib, name) for name in dimlib.__all__) and set(dimlib.__all__) <= set(dir(dimlib))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = dimlib.nonsense
