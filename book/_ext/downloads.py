"""Each page has the workshop kit to download, each chapter its notebook, the page on teaching the slides: zip files.

A browser shows a bare notebook as text when the book is opened from a folder of files. It saves a zip. The tables and
pictures that a notebook names, such as ../results/faces.csv, are in its zip, in the places where it looks for them.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER, KIT, SLIDES = "_downloads", "dimlib-kit.zip", "slides.zip"
BESIDE = re.compile(r"\.\./(results/\w+\.csv|book/figures/[\w.-]+\.png)")


def link(context, name, text, tooltip):
    """A button of the theme's download menu."""
    return {"type": "link", "url": context["pathto"](f"{FOLDER}/{name}", 1), "text": text, "tooltip": tooltip,
            "icon": "fas fa-file-zipper", "label": f"download-{text.replace(' ', '-')}"}


def change_buttons(app, pagename, templatename, context, doctree):
    """The theme's menu, with zip files in place of the bare notebook."""
    for group in context.get("header_buttons", []):
        if group["label"] == "download-buttons":
            ours = [link(context, KIT, "workshop kit", "Download all notebooks, and how to start")]
            if pagename.startswith("notebooks/"):
                name = f"{Path(pagename).name}.zip"
                ours.insert(0, link(context, name, "notebook", "Download the notebook of this chapter, and its tables"))
            if pagename == "book/teaching":
                ours.append(link(context, SLIDES, "slides", "Download the slides of the lecture; open index.html"))
            group["buttons"] = ours + [b for b in group["buttons"] if b["label"] == "download-pdf-button"]


def write_chapter(notebook, target):
    """One notebook in a zip, with the files that it names."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for path in [f"notebooks/{notebook.name}", *sorted(set(BESIDE.findall(notebook.read_text())))]:
            file.write(ROOT / path, path)


def write_files(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir, FOLDER)
    target.mkdir(exist_ok=True)
    for path in ROOT.glob("notebooks/*.ipynb"):
        write_chapter(path, target / f"{path.stem}.zip")
    subprocess.run([sys.executable, ROOT / "workflow" / "kit.py", target / KIT], check=True)
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "sphinx", "-b", "revealjs", "-n", "-W", "-q", "-d", Path(folder, "cache")]
        subprocess.run([*build, ROOT / "book" / "slides", Path(folder, "slides")], check=True)
        shutil.make_archive(str(target / Path(SLIDES).stem), "zip", folder, "slides")


def setup(app):
    app.connect("html-page-context", change_buttons, priority=502)  # after the theme, which uses 501
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
