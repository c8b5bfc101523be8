"""Settings of the slides, which `make slides` builds. Names and macros are those of the book."""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
BOOK = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
sys.path.insert(0, str(ROOT / "book" / "_ext"))

project, author, copyright = BOOK["title"], BOOK["author"], BOOK["copyright"]
extensions = ["myst_parser", "sphinx.ext.mathjax", "sphinx_revealjs", "offline_mathjax", "cell_figure"]
myst_enable_extensions = ["attrs_block", "dollarmath"]
mathjax3_config = BOOK["sphinx"]["config"]["mathjax3_config"]

revealjs_html_theme = "revealjs-simple"
revealjs_style_theme = "white"
revealjs_static_path = ["_static"]
revealjs_css_files = ["slides.css"]
revealjs_script_conf = {
    "width": 1280,
    "height": 720,
    "center": False,
    "hash": True,
    "slideNumber": "c/t",
    "transition": "none",
    "totalTime": 90 * 60,
}
revealjs_script_plugins = [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}]
