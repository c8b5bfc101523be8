"""In chapters, the first use of each word of the glossary becomes a link to the glossary.

Words that can also mean something else are left out. Only running text is looked at: no titles, formulas, code, links,
captions or tables. The words are those of `book/glossary.md`, also with an s at the end, with a capital letter, or in
one of the `FORMS`.
"""

import re
from functools import lru_cache
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref

CHAPTERS = "notebooks/"
OTHER = (nodes.title, nodes.literal, nodes.literal_block, nodes.reference, nodes.caption, nodes.table, nodes.rubric,
         nodes.math, nodes.math_block, pending_xref)
ALSO_OTHER = {"frame, noise along a", "reach", "doubt"}  # "a frame of vectors", "they reach 10", "we doubt"
NOT_HERE = {"score": "28_"}                              # in this chapter a score is a number for each image
FORMS = {"spectra": "spectrum", "noisy copy": "noisy copies", "the reach": "reach", "doubts": "doubt"}  # of a term


@lru_cache
def pattern(glossary):
    """One regular expression for all terms, the longest first, and a map from what it finds to the term."""
    terms = re.findall(r"^([^\s`].*)\n  \S", glossary.read_text().split("```{glossary}")[1], re.MULTILINE)
    words = {term.split(",")[0].lower(): term for term in terms if term not in ALSO_OTHER} | FORMS
    longest = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.compile(rf"\b({longest})s?\b", re.IGNORECASE), words


def link_terms(app, doctree):
    """Replace the first use of each term in a chapter."""
    if not app.env.docname.startswith(CHAPTERS):
        return
    find, terms = pattern(Path(app.srcdir) / "book" / "glossary.md")
    linked = set()
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, (nodes.paragraph, nodes.emphasis, nodes.strong)) or _inside(text, OTHER):
            continue
        parts, end = [], 0
        for found in find.finditer(text.astext()):
            term = terms[found[1].lower()]
            if term in linked or NOT_HERE.get(term, " ") in app.env.docname:
                continue
            linked.add(term)
            parts += [nodes.Text(text.astext()[end:found.start()]), _link(app, term, found[0])]
            end = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text.astext()[end:])])


def _inside(node, kinds):
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _link(app, term, shown):
    shown = nodes.inline("", shown, classes=["xref", "std", "std-term"])
    return pending_xref("", shown, refdomain="std", reftype="term", reftarget=term, refexplicit=True, refwarn=True,
                        refdoc=app.env.docname)


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", link_terms, priority=900)  # after the captions
    return {"version": "1", "parallel_read_safe": True}
