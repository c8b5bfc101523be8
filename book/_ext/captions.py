"""Figures of notebooks get a number, a caption and an alternative text.

In a notebook a picture is the output of a cell, and the next paragraph says "*What to see: …*". In the book that
paragraph becomes the caption of a figure, which Sphinx numbers, and the alternative text of its pictures. The label of
the figure is `fig-` and the id of the cell, so the text can refer to it: {numref}`fig-03-singular-values`.
"""

from functools import lru_cache

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
        for image in picture.findall(nodes.image):
            image["alt"] = caption.astext()
        label = f"fig-{_cell_ids(app.env.doc2path(app.env.docname))[cell['cell_index']]}"
        labels[label] = app.env.docname, label, caption.astext()
        figure = doctree.ids[label] = nodes.figure("", ids=[label], classes=["from-cell"])
        picture.replace_self(figure)
        figure += [picture, caption]
        paragraph.parent.remove(paragraph)


@lru_cache(maxsize=1)  # of one notebook after the other
def _cell_ids(notebook):
    return [cell.id for cell in nbformat.read(notebook, as_version=4).cells]


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
