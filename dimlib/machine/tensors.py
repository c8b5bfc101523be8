"""Files of tensors: models and checkpoints. Files are replaced in one step.

The format is safetensors, with a JSON entry and a SHA-256 of everything else in the header.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Saved", "known", "locked", "read_checkpoint", "read_tensors", "register", "replacing", "write_checkpoint",
           "write_tensors"]

_KNOWN: dict[str, type[nn.Module]] = {}


def register(network: type[nn.Module]) -> type[nn.Module]:
    """Class decorator: a saved model may name this network, and is loaded as ``network(**config)``.

    Its instances need an attribute ``config``: the arguments of ``__init__``, as numbers, texts and lists.
    ``ValueError`` if another module has registered a network of that name.
    """
    name = network.__name__
    if _KNOWN.get(name, network).__module__ != network.__module__:         # a cell of a notebook may run twice
        raise ValueError(f"a network {name!r} of {_KNOWN[name].__module__} is registered: give yours another name")
    _KNOWN[name] = network
    return network


def known(name: str) -> type[nn.Module]:
    """The registered network of that name; ``ValueError`` where there is none."""
    if name not in _KNOWN:
        raise ValueError(f"the network {name!r} is none of {', '.join(_KNOWN)}: to save and load your own, "
                         "put @dimlib.networks.register above its class")
    return _KNOWN[name]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new file to write to in a ``with`` block. At its end the new file takes the place of ``path``.

    A process that is killed leaves the old file as it was; an error removes the new one. The folder is made if needed.
    A symbolic link stays one: the file that it names is replaced. ``IsADirectoryError`` if ``path`` is a folder.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        umask = os.umask(0)
        os.umask(umask)
        unfinished.chmod(0o666 & ~umask)                                   # mkstemp lets only its owner read
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())                                        # on the disk before it has its name
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path | None) -> Iterator[None]:
    """Lock a file for this process, with a second file ``.lock``; ``RuntimeError`` where another process has it."""
    if path is None:
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(f"{path} is in use by another process: wait for it, or name another") from None
    try:
        yield
    finally:
        lock.release()


def write_tensors(tensors: dict[str, Tensor], path: str | Path, entry: str, header: dict) -> None:
    """Write a file of tensors with one JSON entry in its header; an old file is replaced at the end, in one step."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header)
    with replacing(path) as unfinished:
        safetensors.torch.save_file(tensors, unfinished, {entry: text, "sha256": _sha256(tensors, entry, text)})


def read_tensors(path: str | Path, entry: str) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the JSON entry of a file from `write_tensors`; ``ValueError`` for any other or damaged file."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            header = file.metadata() or {}
        text = header[entry]
        tensors = safetensors.torch.load_file(str(path))
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path} has no {entry!r} entry in a safetensors header: it is no such file") from error
    if header.get("sha256") != _sha256(tensors, entry, text):
        raise ValueError(f"{path} is damaged, or from another version of dimlib: its content has another SHA-256 than "
                         "its header says")
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
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


class Saved(nn.Module):
    """A module with a network ``net`` and a ``config`` (the other arguments of its ``__init__``) that has files."""

    net: nn.Module

    if TYPE_CHECKING:                                                      # each class has its own
        @property
        def config(self) -> dict: ...

    def save(self, path: str | Path) -> None:
        """Write a safetensors file. ``ValueError`` for a network that is not registered, since it could not be read."""
        name = type(self.net).__name__
        ours, theirs = known(name), type(self.net)
        if (ours.__module__, ours.__qualname__) != (theirs.__module__, theirs.__qualname__):
            raise ValueError(f"another network {name!r} is registered: give yours another name, and put "
                             "@dimlib.networks.register above its class")
        if not isinstance(getattr(self.net, "config", None), dict):
            raise ValueError(f"{name} has no attribute config, a dict of the arguments of its __init__")
        header = self.config | {"network": name, "network_config": self.net.config}
        write_tensors(self.state_dict(), path, "score_model", header)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu"):
        """Read a model that ``save`` wrote. ``ValueError`` for any other file, and for weights that are not finite.

        Only registered networks are built, and only if their weights have the shapes of those in the file.
        """
        weights, config = read_tensors(path, "score_model")
        try:
            model = cls._built(path, weights, config)
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{path} does not fit its own network: {error!r}") from error
        return model.to(device)

    @classmethod
    def _built(cls, path, weights, config):
        network, arguments = known(config.pop("network")), config.pop("network_config")
        largest = sum(tensor.numel() for tensor in weights.values())
        too_large = [name for name, value in arguments.items() if isinstance(value, int) and value > largest]
        if too_large:
            raise ValueError(f"{path} does not fit its own network: {', '.join(too_large)} is larger than the file")
        found = {name.removeprefix("net."): tensor.shape for name, tensor in weights.items() if name.startswith("net.")}
        if _shapes(network, arguments) not in (found, None):
            raise ValueError(f"{path} does not fit its own network: the weights have other names or shapes")
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise ValueError(f"{path} has weights that are NaN or infinite: the training of this model failed")
        model = cls(network(**arguments), data_mean=weights["data_mean"], **config)
        model.load_state_dict(weights)
        return model


def _shapes(network, arguments):
    """The shapes of a network's weights, found without memory, on the device "meta", whose tensors have no values.

    None for a network whose ``__init__`` reads values: PyTorch's error then names that device. RuntimeError for a
    configuration that the network refuses.
    """
    try:
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in network(**arguments).state_dict().items()}
    except (RuntimeError, ValueError) as error:                            # NotImplementedError is a RuntimeError
        if "meta" not in str(error):
            raise RuntimeError(str(error)) from error
        return None


def write_checkpoint(path: str | Path, run: dict, history: list[tuple], modules: dict[str, nn.Module],
                     optimizers: list[Optimizer]) -> None:
    """Write the state of a training run.

    Args:
        run: what identifies the run, as JSON, with its number of steps: `read_checkpoint` refuses another one.
        history: one row of numbers for each step.
        modules: networks by name.
        optimizers: their optimisers.
    """
    tensors = {"history": torch.tensor(history, dtype=torch.float64)}
    for name, module in modules.items():
        tensors |= {f"{name}.{k}": t for k, t in module.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        states = optimizer.state_dict()["state"]                           # none for parameters that are not used
        tensors[f"optimizer{i}"] = torch.tensor(list(states), dtype=torch.int64)
        for j, state in states.items():
            tensors |= {f"optimizer{i}.{j}.{k}": t for k, t in state.items()}
    if Path(path).exists():
        os.replace(path, _previous(path))
    write_tensors(tensors, path, "training", run)


def _previous(path: str | Path) -> Path:
    return Path(f"{path}.previous")


def read_checkpoint(path: str | Path, run: dict, modules: dict[str, nn.Module],
                    optimizers: list[Optimizer]) -> list[list[float]]:
    """Put the state that `write_checkpoint` wrote into the modules and optimisers, and return the history.

    The history is empty, and nothing changes, where there is no such file. Where the file is damaged, the one before it
    is read, with a warning; the damaged file is renamed to ``.damaged``, so that it never replaces an intact one.
    ``ValueError`` for a file of another run, if both are damaged, and if a part is missing.
    """
    previous = _previous(path)
    if not Path(path).exists() and not previous.exists():
        return []
    advice = f"delete it, and {previous.name}, to train from the start"
    try:
        tensors, header = read_tensors(path, "training")
    except (ValueError, OSError) as error:
        if not previous.exists():
            raise ValueError(f"{error}: delete it to train from the start") from error
        try:
            tensors, header = read_tensors(previous, "training")
        except ValueError as other:
            raise ValueError(f"{error}; {other}: delete both to train from the start") from error
        if Path(path).exists():
            os.replace(path, f"{path}.damaged")
        warnings.warn(f"{error}: the training goes on from the checkpoint before it", stacklevel=3)
        path = previous
    if header != run:
        differing = ", ".join(key for key in run | header if header.get(key) != run.get(key))
        raise ValueError(f"{path} belongs to another run, with other {differing}: delete it, or name another file")
    if "history" in tensors and len(tensors["history"]) > run["steps"]:
        raise ValueError(f"{path} has {len(tensors['history'])} steps of a run of {run['steps']}: {advice}")
    try:
        for name, module in modules.items():
            module.load_state_dict(_part(tensors, name))
        for i, optimizer in enumerate(optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _part(tensors, f"optimizer{i}").items():
                index, name = key.split(".")
                state.setdefault(int(index), {})[name] = tensor
            if set(state) != set(tensors[f"optimizer{i}"].tolist()):
                raise KeyError(f"optimizer{i}")
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        return tensors["history"].tolist()
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} lacks a part of its run, or has one that does not fit ({error}): {advice}") from error


def _part(tensors, name):
    return {k.removeprefix(name + "."): t for k, t in tensors.items() if k.startswith(name + ".")}
