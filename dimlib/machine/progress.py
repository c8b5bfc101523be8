"""A progress bar."""

import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm

__all__ = ["show"]


def show(run: Iterable, total: int, unit: str = "step", notebook: bool = False) -> Iterator:
    """The same items, with a progress bar on a terminal, and in a notebook where asked for, but not in a log file.

    For training steps (`dimlib.training.Progress`) it shows the loss.
    """
    hidden = False if notebook and _in_a_notebook() else None              # None: unless on a terminal
    with tqdm(run, total=total, unit=unit, disable=hidden) as bar:
        for item in bar:
            if hasattr(item, "loss"):
                bar.set_postfix(loss=f"{item.loss:.3g}", refresh=False)
            yield item


def _in_a_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")
