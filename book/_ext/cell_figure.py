"""Show a picture that is stored with a cell of a notebook:

    ```{cell-figure} 01_manifolds_and_noise 01-arrows
    What the picture shows, for those who cannot see it.
    ```
"""

from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def pictures(notebook, cell_id):
    """The PNG pictures, base64, among the stored outputs of a cell."""
    cells = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4).cells
    outputs = [output for cell in cells if cell.id == cell_id for output in cell.get("outputs", [])]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


class CellFigure(SphinxDirective):
    required_arguments = 2
    has_content = True

    def run(self):
        notebook, cell_id = self.arguments
        self.env.note_dependency(str(NOTEBOOKS / f"{notebook}.ipynb"))
        found = pictures(notebook, cell_id)
        if len(found) != 1:
            raise self.error(f"{notebook}.ipynb must have a cell {cell_id} with one picture, and has {len(found)}")
        source = "".join(found[0].split())
        alt = escape(" ".join(self.content))
        return [nodes.raw("", f'<img src="data:image/png;base64,{source}" alt="{alt}">', format="html")]


def setup(app):
    app.add_directive("cell-figure", CellFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
