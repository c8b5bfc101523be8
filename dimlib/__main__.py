"""The command ``python -m dimlib DATA``: see `dimlib.apply.command`."""

from .apply.command import run

run()
