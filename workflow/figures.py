"""Copy figures out of an executed notebook: python workflow/figures.py RUN.IPYNB OUTPUT...

An OUTPUT is named after its section: book/figures/mnist-tangents-seen.png is the last figure of "Tangents seen".
"""

import base64
import sys
from pathlib import Path

import nbformat


def figures(nb: nbformat.NotebookNode) -> dict[str, bytes]:
    """The last figure of each section, by the section's heading in lower case with hyphens."""
    found, section = {}, ""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("#"):
                    section = "-".join(line.strip("# ").lower().split())
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                found[section] = base64.b64decode(output["data"]["image/png"])
    return found


def main(run: str, *outputs: str) -> None:
    found = figures(nbformat.read(run, as_version=4))
    for output in map(Path, outputs):
        section = output.stem.partition("-")[2]
        if section not in found:
            raise KeyError(f"{run} has no figure in a section '{section}', but in {', '.join(found)}")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(found[section])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
