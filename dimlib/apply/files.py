"""Data from files: NumPy arrays, tables, folders of images, each to one array of numbers, checked."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["read"]

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
COLOURS = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}  # Pillow's modes, and what is read
EXTRA = "pip install 'dimlib[data]'"


def read(path: str | Path, key: str | None = None) -> tuple[NDArray, str]:
    """Data from a file or folder, shape (N, d) or ``(N, *shape)``, and in words what they are.

    Args:
        path: an array (npy, npz); or a table (csv, csv.gz, parquet) with one row for each point, with or without names
            of columns; or a folder of images of one size. Images become grey (N, h, w) or RGB (N, h, w, 3) values from
            0 to 1, without transparency.
        key: name of the array in an npz file; needed if it has several.

    Raises:
        ValueError: another kind of file, text, missing or infinite values, one column, images of several sizes.
        OSError: what cannot be opened. ModuleNotFoundError: pandas, pyarrow or Pillow are missing.
    """
    path = Path(path)
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if key is not None and kind != "npz":
        raise ValueError(f"key {key!r} names an array of an npz file, and {path} is none: leave it out")
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.is_dir():
        x, words = _images(path)
    elif kind in ("npy", "npz"):
        x, words = _array(path, key)
    elif kind in ("csv", "parquet"):
        x, words = _table(path, kind)
    else:
        raise ValueError(f"{path} is no npy, npz, csv, csv.gz or parquet file, and no folder of images: convert it")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {x.dtype}, not real numbers: convert it")
    if x.ndim < 2 or x[:1].size < 2:
        raise ValueError(f"{path} has shape {x.shape}: rows of at least two columns are needed")
    bad = len(x) - np.isfinite(x.reshape(len(x), -1)).all(1).sum()
    if bad:
        raise ValueError(f"{bad} of the {len(x)} rows of {path} have missing or infinite values: remove or impute them")
    return x, words


def _array(path, key):
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file of numbers that NumPy has saved: {error}") from error
    if isinstance(found, np.ndarray):
        return found, "array"
    with found:
        if key is None and len(found.files) == 1:
            key = found.files[0]
        if key not in found.files:
            raise ValueError(f"{path} has the arrays {', '.join(found.files)}"
                             + (": choose one by its key" if key is None else f", and no {key!r}"))
        try:
            return found[key], f"array {key!r}"
        except ValueError as error:
            raise ValueError(f"array {key!r} of {path} cannot be read: {error}") from error


def _table(path, kind):
    try:
        import pandas as pd

        if kind == "csv":
            table, words = _csv(path, pd)
        else:
            table, words = pd.read_parquet(path), "parquet table"
    except ImportError as error:
        raise ModuleNotFoundError(f"{kind} files need pandas and pyarrow: {EXTRA}") from error
    if table.shape[1] < 2:
        raise ValueError(f"{path} has one column: at least two are needed, in a csv file separated by commas")
    text = [str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    if text:
        raise ValueError(f"{path} has text or dates in {len(text)} of {table.shape[1]} columns, {', '.join(text[:5])}"
                         f"{', …' * (len(text) > 5)}: remove them, or make them numbers")
    return table.to_numpy(dtype=float, na_value=np.nan), words


def _csv(path, pd):
    """A csv file. Its first line is read as names of columns if one of its cells is not a number, or if the cells are
    0, 1, 2, …, which pandas writes for columns without names."""
    first = pd.read_csv(path, header=None, nrows=1)
    numbers = all(pd.api.types.is_numeric_dtype(kind) for kind in first.dtypes) and first.notna().all(axis=None)
    if numbers and (first.iloc[0] != range(first.shape[1])).any():
        return pd.read_csv(path, header=None), "csv table without names of columns"
    numbered = pd.isna(first.iloc[0, 0])                                   # as pandas writes its numbers of rows
    table = pd.read_csv(path, index_col=0 if numbered else None)
    if not numbered and not table.index.equals(pd.RangeIndex(len(table))):
        raise ValueError(f"{path} has {first.shape[1]} cells in its first line, and more in others: make it one name "
                         "for each column, or remove it")
    return table, "csv table with names of columns" + (", without its first, which has none" if numbered else "")


def _images(folder):
    try:
        from PIL import Image
    except ImportError as error:
        raise ModuleNotFoundError(f"images need Pillow: {EXTRA}") from error
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    if not paths:
        raise ValueError(f"folder {folder} has no images: {', '.join(sorted(IMAGES))} are read")
    x = []
    for path in paths:
        with Image.open(path) as image:
            if image.mode not in COLOURS:
                raise ValueError(f"{path} has the mode {image.mode}: save it as grey or RGB, with 8 bits")
            x.append(np.asarray(image.convert(COLOURS[image.mode]), dtype=np.float32) / 255)
        if x[-1].shape != x[0].shape:
            raise ValueError(f"{path} is {_size(x[-1])}, and {paths[0].name} is {_size(x[0])}: make all the same")
    return np.stack(x), f"folder of images, {_size(x[0])}"


def _size(image):
    return f"{image.shape[1]}×{image.shape[0]} {'grey' if image.ndim == 2 else 'RGB'}"
