"""The command ``python -m dimlib DATA``: see `dimlib.apply.command`."""

import sys

from .apply.program import run

if __name__ == "__main__":
    sys.exit(run())
