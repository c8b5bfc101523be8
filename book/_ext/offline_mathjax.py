"""Ship MathJax with the book, so that formulas render without a network.

The file comes from the package `sphinx-mathjax-offline`, which is used as a data source only:
loading it as a Sphinx extension would copy 24 MB of fonts, while `tex-svg-full.js` is one file
that needs nothing else.
"""

from importlib.util import find_spec
from pathlib import Path
from shutil import copy2

NAME = "tex-svg-full.js"
SOURCE = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / NAME


def use_local_copy(app, config):
    config.mathjax_path = f"mathjax/{NAME}"


def copy_to_build(app, exception):
    if exception is None and app.builder.format == "html":
        target = Path(app.outdir, "_static", "mathjax", NAME)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy2(SOURCE, target)


def setup(app):
    app.connect("config-inited", use_local_copy)
    app.connect("build-finished", copy_to_build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
