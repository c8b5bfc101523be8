"""The scripts of the workflow, on small inputs."""

import base64
import subprocess
import sys
from pathlib import Path

import nbformat
import nbformat.v4 as new

ROOT = Path(__file__).parents[1]


def notebook_with_figures():
    def drawing(content):
        picture = new.new_output("display_data", {"image/png": base64.b64encode(content).decode()})
        return new.new_code_cell("draw()", outputs=[picture])

    return new.new_notebook(cells=[
        new.new_markdown_cell("# A chapter"), drawing(b"first"),
        new.new_markdown_cell("## Tangents seen\n\nin words"), drawing(b"second"), drawing(b"third")])


def test_figures_are_found_by_their_section(tmp_path):
    nbformat.write(notebook_with_figures(), tmp_path / "run.ipynb")
    outputs = tmp_path / "mnist-tangents-seen.png", tmp_path / "mnist-a-chapter.png"
    subprocess.run([sys.executable, ROOT / "workflow/figures.py", tmp_path / "run.ipynb", *outputs], check=True)
    assert [output.read_bytes() for output in outputs] == [b"third", b"first"]


def test_a_section_without_a_figure_is_named(tmp_path):
    nbformat.write(notebook_with_figures(), tmp_path / "run.ipynb")
    command = [sys.executable, ROOT / "workflow/figures.py", tmp_path / "run.ipynb", tmp_path / "x-samples.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and "no figure in a section 'samples'" in done.stderr
