"""Figures of notebooks get a number, a caption and an alternative text.

In a notebook a picture is the output of a cell, and the next paragraph says "*What to see: …*". In the book that
paragraph becomes the caption of a figure, which Sphinx numbers. The label of the figure is `fig-` and the id of the
cell, so the text can refer to it: {numref}`fig-03-singular-values`. The alternative text of its pictures says what is
drawn: titles, axes and curves, as the code of the cell names them.
"""

import ast
import re
from functools import lru_cache
from pathlib import Path

import nbformat
from docutils import nodes

START = "What to see"


def make_figures(app, doctree):
    """Put each paragraph that starts with START, and the output before it, into a figure."""
    labels = app.env.get_domain("std").labels
    for paragraph in list(doctree.findall(nodes.paragraph)):
        first = paragraph.next_node()
        if not (isinstance(first, nodes.emphasis) and first.astext().startswith(START)):
            continue
        position = paragraph.parent.index(paragraph)
        cell = paragraph.parent[position - 1] if position else None
        outputs = [output for output in cell.findall(nodes.container) if _is_a_picture(output)] if cell else []
        if not outputs:                                                    # a table
            continue
        picture = outputs[-1]
        caption = nodes.caption("", "", *_without_start(paragraph))
        code = _cells(app.env.doc2path(app.env.docname))[cell["cell_index"]]
        for image in picture.findall(nodes.image):
            drawn = described(code.source)
            image["alt"] = drawn if drawn.startswith("Plot of ") else f"{drawn}. {caption.astext()}".lstrip(". ")
        label = f"fig-{code.id}"
        labels[label] = app.env.docname, label, caption.astext()
        figure = doctree.ids[label] = nodes.figure("", ids=[label], classes=["from-cell"])
        picture.replace_self(figure)
        figure += [picture, caption]
        paragraph.parent.remove(paragraph)


@lru_cache(maxsize=1)  # of one notebook after the other
def _cells(notebook):
    return nbformat.read(notebook, as_version=4).cells


def described(source):
    """Titles, axes and curves of a picture, as the code that draws it names them, also in `dimlib.book.plotting`."""
    said = {"title": [], "xlabel": [], "ylabel": [], "label": []}
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for call in calls + [inner for outer in calls for inner in _drawing().get(_name(outer), [])]:
        named = [(keyword.arg, keyword.value) for keyword in call.keywords]
        if _name(call).startswith("set_") and call.args:
            named.append((_name(call).removeprefix("set_"), call.args[0]))
        for kind, value in named:
            words = _words(value)
            if words and kind in said and words not in said[kind]:
                said[kind].append(words)
    parts = [(f"Plot of {' and of '.join(said['ylabel'])} against {' and '.join(said['xlabel'])}"
              if said["xlabel"] and said["ylabel"] else ""),
             "panels: " + ", ".join(said["title"]) if said["title"] else "",
             "curves or marks: " + ", ".join(said["label"]) if said["label"] else ""]
    text = "; ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]


@lru_cache
def _drawing():
    """The calls in each function of `dimlib.book.plotting`."""
    source = Path(__file__).parents[2] / "dimlib" / "book" / "plotting.py"
    return {function.name: [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            for function in ast.parse(source.read_text()).body if isinstance(function, ast.FunctionDef)}


def _name(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _words(value):
    """A text in the code without its dollars; an ellipsis for each part that the code computes."""
    if isinstance(value, ast.JoinedStr):
        value = ast.Constant("".join(part.value if isinstance(part, ast.Constant) else "…"
                                     for part in value.values))
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str) or not re.search(r"\w", value.value):
        return ""
    text = re.sub(r"\\sqrt\{(.*?)\}", r"√(\1)", value.value).replace(r"\sigma", "σ").replace(r"\,", "")
    return " ".join(text.replace("$", "").replace("\\", "").split())


def _is_a_picture(output):
    return output.get("nb_element") == "mime_bundle" and any(
        part.get("mime_type") == "image/png" for part in output.findall(nodes.container))


def _without_start(paragraph):
    """The nodes of the paragraph, without emphasis, since a caption is one already, and without START."""
    emphasis, *rest = paragraph.children
    first, *others = emphasis.children
    text = first.astext().removeprefix(START).lstrip(":, \n")
    return [nodes.Text(text[0].upper() + text[1:]), *others, *rest]


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", make_figures)
    return {"version": "1", "parallel_read_safe": True}
