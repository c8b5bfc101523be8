"""What all readers of files share: refusals in words, limits of size, packages that may be missing."""

from contextlib import contextmanager
from importlib import import_module

import numpy as np
import torch

from ..machine.compute import memory

__all__ = ["COPIES", "VALUE", "Refused", "all_different", "check_size", "decoding", "imported"]

COPIES = 7               # of the data, in float64, that a fit has at most: measured
VALUE = 8 * COPIES       # bytes of memory that a fit needs for one value
MOST_BYTES = COPIES * 4e9  # of memory for a fit; and never more than four fifths of what the machine has
FEW = 10                 # rows, too few to compare columns or a first line with


class Refused(ValueError):
    """Data that are not read, with the reason in words."""


@contextmanager
def decoding(path, what):
    """Whatever a decoder raises at a damaged file becomes one error that names the file."""
    try:
        yield
    except (Refused, ImportError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise Refused(f"{path} is damaged, or is no {what}: {str(error) or type(error).__name__}") from error


def check_size(path, needed):
    most = min(MOST_BYTES, 0.8 * memory(torch.device("cpu")))
    if needed > most:
        raise Refused(f"a fit of {path} may need {needed / 1e9:.3g} GB of memory, and {most / 1e9:.3g} GB are the most "
                      "that is used: keep a part of the rows, chosen at random")


def imported(kind, *modules):
    try:
        return [import_module(module) for module in modules]
    except ImportError as error:
        raise ModuleNotFoundError(f"{kind}: pip install 'dimlib[data]'") from error


def all_different(column):
    return (column == np.round(column)).all() and len(np.unique(column)) == len(column)
