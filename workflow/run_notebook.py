"""Run a notebook with other parameters, and leave nothing in it that differs from run to run.

    python workflow/run_notebook.py NOTEBOOK OUTPUT [name=value ...]

Values are Python literals (`dim=50`, `lr=1e-3`, `levels=0.01,0.02`); anything else is text
(`device=cuda`), and so is the value of a parameter whose default is text. The notebook runs in its
own folder, as in Jupyter; `out_dir=` alone is understood from where this command is called. OUTPUT
may be NOTEBOOK itself: it is replaced at the end, and only if every cell ran. While a notebook
runs, a second run with the same `out_dir` is refused.
"""

import ast
import os
import signal
import sys
from pathlib import Path

import nbformat
import papermill

from dimlib.machine.tensors import locked, replacing


def parse(assignments: list[str], notebook: Path) -> dict:
    """Turn `name=value` strings into parameters that the notebook knows."""
    known = papermill.inspect_notebook(notebook)
    parameters = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if name not in known:
            raise ValueError(f"{notebook} has no parameter {name!r}; it has {', '.join(known)}")
        if not equals:
            raise ValueError(f"{name!r} has no value: write {name}=value")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: thousands of brackets
            value = text
        if known[name]["inferred_type_name"] == "str" and not isinstance(value, str):
            value = text  # such as the folder 2024_11, which is also a Python number
        parameters[name] = list(value) if isinstance(value, tuple) else value  # papermill makes text of a tuple
    if "out_dir" in parameters:  # real paths: the folder of the notebook may be a link
        folder = os.path.realpath(str(parameters["out_dir"]))
        parameters["out_dir"] = os.path.relpath(folder, os.path.realpath(notebook.parent))
    return parameters


def results_of(notebook: Path, parameters: dict) -> Path | None:
    """A name in the folder that a run writes to, for its lock; None for a notebook that writes nothing."""
    default = papermill.inspect_notebook(notebook).get("out_dir", {}).get("default")
    folder = parameters.get("out_dir") or (default and ast.literal_eval(default))
    return folder and notebook.parent / folder / "out_dir"


def clean(nb: nbformat.NotebookNode) -> None:
    """Remove timestamps, paths, versions and random ids."""
    for key in ("papermill", "widgets"):
        nb.metadata.pop(key, None)
    nb.metadata.language_info.pop("version", None)
    for cell in nb.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"


def main(notebook: str, output: str, *assignments: str) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    source, target = Path(notebook), Path(output)
    parameters = parse(list(assignments), source)
    # What cannot be written is noticed here, before the run.
    with replacing(target) as unfinished, locked(results_of(source, parameters)):
        nb = papermill.execute_notebook(
            source, None, parameters, cwd=source.parent, progress_bar=False, coalesce_streams=True
        )
        clean(nb)
        nbformat.write(nb, unfinished)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is unfinished is removed, at Slurm's limit
    main(*sys.argv[1:])
