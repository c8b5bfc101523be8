"""The text of a notebook without MyST, for JupyterLab, VS Code and Colab, which show only plain Markdown.

The book is written in MyST: blocks such as `:::{note}`, references such as {numref}`fig-03-gap`, and macros such as
`\\RR`. Here a block becomes a bold title, or details that open; a reference becomes words; a macro its definition.
"""

import re
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
OPENS = re.compile(r"([`:]{3,})(?:\{([\w:-]+)\} *(.*)|[\w-]*)$")
ROLE = re.compile(r"\{([\w:]+)\}`([^`]+)`")
CAPTION = "*What to see"
TITLED = {"admonition": "", "note": "Note", "warning": "Warning"}


def macros() -> dict[str, str]:
    """The macros of the book's formulas that have no arguments."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    found = config["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"]
    return {name: text for name, text in found.items() if isinstance(text, str)}


MACROS = macros()
MACRO = re.compile(rf"\\({'|'.join(MACROS)})(?![A-Za-z])")


def options(lines: list[str]) -> dict[str, str]:
    """Take the options off the start of a block, such as `:label: nb01-shell`."""
    found = {}
    while lines and (option := re.match(r":(\w+): ?(.*)$", lines[0])):
        found[option[1]] = option[2]
        lines.pop(0)
    return found


def labels(notebooks: dict[str, NotebookNode]) -> dict[str, str]:
    """What a reference to a figure, a formula or a statement says."""
    said = {}
    for name, nb in notebooks.items():
        n_figures, cell_before = 0, None
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                if cell.source.startswith(CAPTION) and cell_before is not None:
                    n_figures += 1
                    said[f"fig-{cell_before.id}"] = f"Figure {n_figures}", name
                for kind, title, label in re.findall(r"\{prf:(\w+)\} *(.*)\n:label: (\S+)", cell.source):
                    said[label] = f"{kind} “{title}”", name
                for figure in re.findall(r"\{figure\}.*\n(?::\w+:.*\n)*:name: (\S+)", cell.source):
                    n_figures += 1
                    said[figure] = f"Figure {n_figures}", name
            cell_before = cell if cell.cell_type == "code" else None
        formulas = re.findall(r"\{math\}\n:label: (\S+)", "\n".join(cell.source for cell in nb.cells))
        said |= {label: (f"({i})", name) for i, label in enumerate(formulas, 1)}
    return said


BOOK = {path.stem: nbformat.read(path, as_version=4) for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
LABELS = labels(BOOK)


def reference(role: str, target: str, chapter: str) -> str:
    """The words for a role."""
    if role == "math":
        return f"${target}$"
    if role.startswith("cite"):
        works = [re.sub(r"([a-z]+)(\d+)", lambda key: f"{key[1].capitalize()} {key[2]}", key)
                 for key in target.split(",")]
        return f"({'; '.join(works)})" if role == "cite" else " and ".join(works)
    if role.startswith("py:"):
        return f"`{target.rsplit('.', 1)[1] if target[0] == '~' else target}`"
    if role == "ref":                                                      # text <label>
        return target.split(" <")[0]
    words, where = LABELS[target]
    return words if where == chapter else f"{words} of chapter {int(where[:2])}"


def opening(kind: str, title: str, given: dict[str, str]) -> str:
    if kind == "dropdown":
        return f"<details>\n<summary>{title}</summary>\n"
    if kind == "math":
        return "$$"
    if kind == "figure":
        return f"![{given['alt']}]({title})\n\n**{LABELS[given['name']][0]}.**"
    if kind == "exercise":
        return f"**Exercise** `{given['label']}`\n"
    if kind.startswith("prf:"):
        name = kind.removeprefix("prf:").capitalize()
        return f"**{name}{f' ({title})' if title else ''}.**"
    if not title and kind not in TITLED:
        raise ValueError(f"the block {{{kind}}} has no plain Markdown: give it a title in TITLED, workflow/plain.py")
    return f"**{title or TITLED[kind]}**\n"


def blocks(text: str, chapter: str) -> str:
    """The text with plain Markdown in place of blocks."""
    lines, said, open_blocks = text.splitlines(), [], []
    while lines:
        line = lines.pop(0)
        if open_blocks and line == open_blocks[-1][0]:
            kind = open_blocks.pop()[1]
            said.append({None: line, "dropdown": "\n</details>\n", "math": "$$"}.get(kind, ""))
        elif found := OPENS.match(line):
            fence, kind, title = found.groups()
            open_blocks.append((fence, kind))
            given = options(lines) if kind else {}
            said.append(opening(kind, title, given) if kind else line)
            if kind == "math" and "label" in given:
                said.append(rf"\tag{{{LABELS[given['label']][0].strip('()')}}}")
        elif not re.fullmatch(r"\([\w-]+\)=", line):                       # a label of a section
            said.append(line)
    return "\n".join(said)


def plain(nb: NotebookNode, chapter: str) -> NotebookNode:
    """The notebook of a chapter with plain Markdown, and with folded code folded in JupyterLab, too."""
    cells, code = [], None
    for cell in map(nbformat.from_dict, nb.cells):
        if cell.cell_type == "code":
            code = cell
            if "hide-input" in cell.metadata.get("tags", []):
                cell.metadata["jupyter"] = {"source_hidden": True}
        else:
            text = cell.source
            if text.startswith(CAPTION) and code is not None:
                text = text.replace(CAPTION, f"*{LABELS[f'fig-{code.id}'][0]}. What to see", 1)
            text = blocks(text, chapter)
            text = ROLE.sub(lambda role: reference(role[1], role[2], chapter), text)
            text = re.sub(r"(?<!!)\[([^\]]*)\]\(\.\./book/[^)]*\)", r"\1", text)  # pages that only the book has
            cell.source = MACRO.sub(lambda macro: MACROS[macro[1]], text)
            code = None
        cells.append(cell)
    return nbformat.from_dict({**nb, "cells": cells})
