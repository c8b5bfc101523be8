"""Files of tensors, which are replaced in one step, and locks.

The format is safetensors, with a JSON entry and a SHA-256 of everything else in the header.
"""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

__all__ = ["as_read", "locked", "read_tensors", "replacing", "shapes", "write_tensors"]


def _check_file(path: Path) -> None:
    """``IsADirectoryError`` for a folder, and ``OSError`` for a device or a pipe: nothing may take its place."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is a device or a pipe: give the name of a file")


@contextmanager
def replacing(path: str | Path, keep: Path | None = None) -> Iterator[Path]:
    """A new file to write to in a ``with`` block. At its end the new file takes the place of ``path``.

    A process that is killed leaves the old file as it was; an error removes the new one. The folder is made if needed.
    A symbolic link stays one: the file that it names is replaced. The permissions stay, too. With ``keep``, the old
    file gets that name. ``IsADirectoryError`` if ``path`` is a folder, ``OSError`` if it is a device or a pipe.
    """
    path = Path(os.path.realpath(path))
    _check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())                                        # on the disk before it has its name
        unfinished.chmod(_mode(path, keep))                                # mkstemp lets only its owner read
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _mode(*olds):
    """The permissions of the first of these files that is there, or else those of any new file."""
    for old in olds:
        if old is not None and old.exists():
            return stat.S_IMODE(old.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


@contextmanager
def locked(path: str | Path | None) -> Iterator[None]:
    """Lock a file for this process, with a second file ``.lock``; ``RuntimeError`` where another process has it.

    The second file is beside the one that a symbolic link names, so that nobody gets in by another name.
    """
    if not path:
        yield
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(f"{path} is in use by another process: wait for it, or name another") from None
    try:
        yield
    finally:
        lock.release()


def write_tensors(tensors: dict[str, Tensor], path: str | Path, entry: str, header: dict,
                  keep: Path | None = None) -> None:
    """Write a file of tensors with one JSON entry in its header; an old file is replaced at the end, in one step.

    With ``keep``, the old file gets that name. ``TypeError`` for a header that is no JSON, ``OSError`` for a full disk.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header, default=_number)
    with replacing(path, keep) as unfinished:
        try:
            safetensors.torch.save_file(tensors, unfinished, {entry: text, "sha256": _sha256(tensors, entry, text)})
        except safetensors.SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}. If the disk is full, make room, or name a file on "
                          "another one") from error


def _number(value):
    """A number of NumPy as one of Python; ``TypeError`` for anything else that JSON does not have."""
    if not isinstance(value, np.generic):
        raise TypeError(f"{value!r} cannot be in the header of a file: use numbers, texts, lists and dicts")
    return value.item()


def as_read(header: dict) -> dict:
    """The header as it is when it is read again, with Python's numbers and lists. ``TypeError`` as `write_tensors`."""
    return json.loads(json.dumps(header, default=_number))


def read_tensors(path: str | Path, entry: str) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the JSON entry of a file from `write_tensors`.

    ``ValueError`` for any other or damaged file, ``OSError`` for one that is missing or cannot be read.
    """
    _check_file(Path(path))
    with open(path, "rb"):                                                 # safetensors calls a forbidden file missing
        try:
            with safetensors.safe_open(str(path), "pt") as file:
                header = file.metadata() or {}
            text = header[entry]
            tensors = safetensors.torch.load_file(str(path))
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f"{path} has no {entry!r} entry in a safetensors header: it is no such file") from error
        except OSError as error:
            raise OSError(f"{path} cannot be read: {error}") from error
    if header.get("sha256") != _sha256(tensors, entry, text):
        raise ValueError(f"{path} is damaged, or from another version of dimlib: its content has another SHA-256 than "
                         "its header says")
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} has an entry {entry!r} that is no JSON object: it is no such file")
    return tensors, content


def _sha256(tensors: dict[str, Tensor], entry: str, text: str) -> str:
    digest = hashlib.sha256(json.dumps([entry, text]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
