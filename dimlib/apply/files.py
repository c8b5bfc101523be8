"""Data from files: NumPy arrays, tables, folders of images, each to one array of numbers, checked."""

import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .reading import COPIES, FEW, VALUE, Refused, all_different, check_size, decoding, imported
from .tables import table

__all__ = ["read"]

KINDS = ".npy", ".npz", ".csv", ".csv.gz", ".parquet"
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
COLOURS = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}  # Pillow's modes, and what is read
NUMBER_OF_ROW = re.compile(r"(?i:(.*[_ .-])?(id|idx|index|no|nr|row)|id[_ .-].*)|.*[a-z]I[dD]")  # names of such columns


def read(path: str | Path, key: str | None = None) -> tuple[NDArray, str]:
    """Data from a file or folder, shape (N, d) or ``(N, *shape)``, and in words what they are.

    Args:
        path: an array (npy, npz); or a table (csv, csv.gz, parquet) with one row for each point, with or without names
            of columns; or a folder of images of one size. Images become grey (N, 1, h, w) or RGB (N, 3, h, w) values
            from 0 to 1, without transparency.
        key: name of the array in an npz file; needed if it has several.

    The cells of a csv file have commas, semicolons, tabs or spaces between them; with semicolons or tabs, decimals may
    have commas. Lines that begin with # are left out. A first line of numbers is compared with the others: the words
    say whether it was read as names, and a line that could be both is an error. A column that numbers the rows would
    count as a dimension. It is an error in a table; in an array it is kept, and the words say so.

    Raises:
        ValueError: another kind of file, a damaged one, one whose fit needs more than 28 GB, or more than four
            fifths of the memory; text, missing or infinite values, one column, numbers of rows, images of
            several sizes.
        OSError: what cannot be opened. ModuleNotFoundError: pandas, pyarrow or Pillow are missing.
    """
    path = Path(path)
    kind = next((kind for kind in KINDS if path.name.lower().endswith(kind)), None)
    if key is not None and kind != ".npz":
        raise Refused(f"key {key!r} names an array of an npz file, and {path} is none: leave it out")
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if not path.is_dir() and not path.is_file():
        raise Refused(f"{path} is a pipe or a device: save the data as a file first")
    names = None
    if path.is_dir():
        x, words = _images(path)
    elif kind in (".npy", ".npz"):
        x, words = _array(path, key)
    elif kind:
        x, words, names = table(path, kind)
    else:
        raise Refused(f"{path} is no npy, npz, csv, csv.gz or parquet file, and no folder of images: convert it")
    _check(path, x)
    numbers = _numbers_of_rows(x, names)
    if numbers and names:
        raise Refused(f"column {names[numbers[0]]} of {path} numbers the rows, and would count as a dimension: "
                      "remove it, or, if it is data, save the table as npy")
    return x, words + (f" (its column {numbers[0]} numbers the rows: remove it if it is not data)" if numbers else "")


def _check(path, x):
    if x.dtype.kind not in "biuf":
        raise Refused(f"{path} holds {x.dtype}, not real numbers: convert it")
    if x.ndim < 2 or x[:1].size < 2:
        raise Refused(f"{path} has shape {x.shape}: rows of at least two columns are needed")
    bad = len(x) - np.isfinite(x.reshape(len(x), -1)).all(1).sum()
    if bad:
        raise Refused(f"{bad} of the {len(x)} rows of {path} have missing or infinite values: remove or impute them")


def _numbers_of_rows(x, names):
    """The columns of whole numbers, all different, that are in order, or count from 0 or 1, or have such a name."""
    found = []
    for i in range(x.shape[1]) if x.ndim == 2 and len(x) >= FEW else ():
        column = x[:, i].astype(float)
        if all_different(column):
            steps, least = np.diff(column), column.min()
            counts = least in (0, 1) and column.max() - least == len(x) - 1
            if (steps > 0).all() or (steps < 0).all() or counts or (names and NUMBER_OF_ROW.fullmatch(names[i])):
                found.append(i)
    return found


def _array(path, key):
    with decoding(path, "file of numbers that NumPy has saved"), open(path, "rb") as file:
        if file.read(6) == np.lib.format.MAGIC_PREFIX:
            found = np.load(path, mmap_mode="r", allow_pickle=False)       # which looks at the header only
            check_size(path, max(found.nbytes, VALUE * found.size))
            return np.array(found), "array"
        file.seek(0)
        with np.load(file, allow_pickle=False) as found:
            key = found.files[0] if key is None and len(found.files) == 1 else key
            if key not in found.files:
                raise Refused(f"{path} has the arrays {', '.join(found.files) or '(none)'}"
                              + (": choose one by its key" if key is None else f", and no {key!r}"))
            member = key if key in found.zip.namelist() else f"{key}.npy"
            check_size(path, COPIES * found.zip.getinfo(member).file_size)  # before it is decompressed
            with decoding(f"array {key!r} of {path}", "array of numbers"):
                x = found[key]
    if not isinstance(x, np.ndarray):                                      # but the bytes of a file of another kind
        raise Refused(f"{key!r} in {path} is no array that NumPy has saved: choose another by its key")
    check_size(path, VALUE * x.size)
    return x, f"array {key!r}"


def _images(folder):
    (Image,) = imported("images need Pillow", "PIL.Image")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    if not paths:
        raise Refused(f"folder {folder} has no images: {', '.join(sorted(IMAGES))} are read")
    x, sizes = [], []
    for path in paths:
        if not path.is_file():
            raise Refused(f"{path} is no file: remove it from the folder")
        with decoding(path, "image of less than 90 million pixels"), warnings.catch_warnings():
            warnings.simplefilter("ignore")                                # of unusual entries in a header
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode not in COLOURS:
                    raise Refused(f"{path} has the mode {image.mode}: save it as grey or RGB, with 8 bits")
                if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a photograph with its previews
                    raise Refused(f"{path} has {image.n_frames} pages or frames: save each as an image of its own")
                colours = COLOURS[image.mode]
                sizes.append(f"{image.width}×{image.height} {'grey' if colours == 'L' else 'RGB'}")
                if sizes[-1] != sizes[0]:
                    raise Refused(f"{path} is {sizes[-1]}, and {paths[0].name} is {sizes[0]}: make all the same")
                check_size(folder, VALUE * len(paths) * image.width * image.height * len(colours))
                x.append(np.asarray(image.convert(colours), dtype=np.float32) / 255)
    images = np.stack(x)
    images = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return images, f"folder of images, {sizes[0]}"
