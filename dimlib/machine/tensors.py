"""Files of tensors: models and checkpoints. Files are replaced in one step.

The format is safetensors, with a JSON entry and a SHA-256 of everything else in the header.
"""

import hashlib
import json
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

__all__ = ["Saved", "known", "locked", "read_checkpoint", "read_tensors", "register", "replacing", "write_checkpoint",
           "write_tensors"]

TIMES, SPARE = 4, 2**26  # a network from a file may need this many times the bytes of its weights, and 64 MB
LAYERS = 2, 100          # it may make this many times the tensors of the file, and a hundred
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
    if path is None:
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


def _as_read(header: dict) -> dict:
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
        """Write a safetensors file.

        ``ValueError`` for a model that could not be loaded: its network is not registered, or is not what its
        ``config`` builds, or has weights that are not finite. An old file is then left as it was.
        """
        name = type(self.net).__name__
        ours, theirs = known(name), type(self.net)
        if (ours.__module__, ours.__qualname__) != (theirs.__module__, theirs.__qualname__):
            raise ValueError(f"another network {name!r} is registered: give yours another name, and put "
                             "@dimlib.networks.register above its class")
        if not isinstance(getattr(self.net, "config", None), dict):
            raise ValueError(f"{name} has no attribute config, a dict of the arguments of its __init__")
        header = _as_read(self.config | {"network": name, "network_config": self.net.config})
        _check_finite(self, "this model")
        try:
            _check_network(ours, header["network_config"], self.state_dict())
        except ValueError as error:
            raise ValueError(f"this {name} could not be loaded: {error}. Its attribute config must hold the arguments "
                             "of its __init__, with no whole number above the number of its weights, and build a "
                             "network like this one") from error
        write_tensors(self.state_dict(), path, "score_model", header)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu"):
        """Read a model that ``save`` wrote. ``ValueError`` for any other file, and for weights that are not finite.

        Only registered networks are built, and only if their weights have the shapes of those in the file.
        """
        weights, config = read_tensors(path, "score_model")
        try:
            network, arguments = known(config.pop("network")), config.pop("network_config")
            _check_network(network, arguments, weights)
            model = cls(network(**arguments), data_mean=weights["data_mean"], **config)
            model.load_state_dict(weights)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"{path} does not fit its own network: {reason}") from error
        _check_finite(model, path)
        return model.to(device)


def _check_finite(model, name):
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise ValueError(f"{name} has weights that are NaN or infinite: the training of this model failed")


def _check_network(network, arguments, weights):
    """``ValueError`` unless the arguments build a network that has the weights named ``net.``, and needs little else.

    A small file could ask for gigabytes, or for hours. So the network is first built on the device "meta", whose
    tensors have no values, with a limit to the number of its layers.
    """
    found = {name.removeprefix("net."): tensor for name, tensor in weights.items() if name.startswith("net.")}
    largest = sum(tensor.numel() for tensor in found.values())
    too_large = [name for name, value in arguments.items() if isinstance(value, int) and value > largest]
    if too_large:
        raise ValueError(f"{', '.join(too_large)} is larger than the number of weights")
    try:
        net = _trial(network, arguments, LAYERS[0] * len(found) + LAYERS[1])
    except Exception as error:                                             # the network may be anybody's
        raise ValueError(f"its config builds no network: {error!r}") from error
    if _shapes(net.state_dict()) != _shapes(found):
        raise ValueError("its config builds a network whose weights have other names or shapes")
    if _size([*net.parameters(), *net.buffers()]) > TIMES * _size(found.values()) + SPARE:
        raise ValueError("its config builds a network that needs much more memory than its weights")


def _trial(network, arguments, layers):
    """The network on the device "meta", or on the CPU where its ``__init__`` reads values of tensors."""
    try:
        with torch.device("meta"), _Limit(layers):
            return network(**arguments)
    except (RuntimeError, TypeError, ValueError) as error:                 # NotImplementedError is a RuntimeError
        if "meta" not in str(error):                                       # PyTorch's error names the device
            raise
    with torch.random.fork_rng(devices=[]), _Limit(layers):
        return network(**arguments)


class _Limit(TorchFunctionMode):
    """In this context PyTorch's layers can make this number of weights. One more is a ``RuntimeError``."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.left -= func is torch.empty                                   # what all layers call for their weights
        if self.left < 0:
            raise RuntimeError("it has many more layers than there are weights")
        return func(*args, **(kwargs or {}))


def _shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _size(tensors):
    """The number of bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def write_checkpoint(path: str | Path, run: dict, history: list[tuple], modules: dict[str, nn.Module],
                     optimizers: list[Optimizer]) -> None:
    """Write the state of a training run. The file that was there before gets the name ``.previous``.

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
    path, previous = _files(path)
    write_tensors(tensors, path, "training", run, keep=previous)


def _files(path):
    """The file of a checkpoint and that of the one before it. A symbolic link stays one: they are where it leads."""
    path = os.path.realpath(path)
    return Path(path), Path(f"{path}.previous")


def read_checkpoint(path: str | Path, run: dict, modules: dict[str, nn.Module], optimizers: list[Optimizer],
                    columns: int) -> list[list[float]]:
    """Put the state that `write_checkpoint` wrote into the modules and optimisers, and return the history.

    The history is empty, and nothing changes, where there is no such file. Where the file is damaged, or a part of it
    is missing, the one before it is read, with a warning; the damaged file is renamed to ``.damaged``, so that it never
    replaces an intact one. ``ValueError`` for a file of another run, and if both are damaged; ``OSError`` for a file
    that cannot be read; ``TypeError`` for a run that is no JSON.

    Args:
        path, run, modules, optimizers: as for `write_checkpoint`.
        columns: how many numbers the history has for each step.
    """
    newest, previous = _files(path)
    run, errors = _as_read(run), []
    advice = f"delete {newest.name} and {previous.name} to train from the start, or name another file"
    if not newest.exists() and not previous.exists():
        return []
    for file in (newest, previous):
        try:
            tensors, header = read_tensors(file, "training")
            if header == run:
                _check_parts(file, tensors, run, _expected(tensors, modules, optimizers, columns))
        except FileNotFoundError:
            errors.append(f"{file} is missing")
        except ValueError as error:
            errors.append(str(error))
        else:
            if header != run:
                differing = ", ".join(key for key in run | header if header.get(key) != run.get(key))
                raise ValueError(f"{file} belongs to another run, with other {differing}: {advice}")
            _put(tensors, modules, optimizers)
            if errors:
                if newest.exists():
                    os.replace(newest, f"{newest}.damaged")
                warnings.warn(f"{errors[0]}: the training goes on from the checkpoint before it", stacklevel=3)
            return tensors["history"].tolist()
    raise ValueError(f"{'; '.join(errors)}: {advice}")


def _check_parts(file, tensors, run, expected):
    """``ValueError`` unless the tensors have the expected names and shapes, and no more steps than the run."""
    found = _shapes(tensors)
    wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"{file} lacks a part of its run, or has one that does not fit ({', '.join(wrong[:3])})")
    if len(tensors["history"]) > run["steps"]:
        raise ValueError(f"{file} has {len(tensors['history'])} steps of a run of {run['steps']}")


def _expected(tensors, modules, optimizers, columns):
    """The names and shapes of a checkpoint with so many steps, of these parameters of each optimiser."""
    shapes = {"history": (*tensors.get("history", torch.zeros(0)).shape[:1], columns)}
    for name, module in modules.items():
        shapes |= {f"{name}.{k}": shape for k, shape in _shapes(module.state_dict()).items()}
    for i, optimizer in enumerate(optimizers):
        parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
        used = parameters.keys() & tensors.get(f"optimizer{i}", torch.zeros(0)).flatten().tolist()
        shapes[f"optimizer{i}"] = (len(used),)
        for k, like in _kept(optimizer).items():                           # numbers, or tensors like the parameter
            shapes |= {f"optimizer{i}.{j}.{k}": tuple(parameters[j].shape) if like.ndim else () for j in used}
    return shapes


def _kept(optimizer):
    """What an optimiser keeps of a parameter, by name, found by a step on a single number."""
    number = nn.Parameter(torch.zeros(1, 1, device=optimizer.param_groups[0]["params"][0].device))
    number.grad = torch.zeros_like(number)
    twin = type(optimizer)([number], **optimizer.defaults)
    twin.step()
    return twin.state[number]


def _put(tensors, modules, optimizers):
    for name, module in modules.items():
        module.load_state_dict(_part(tensors, name))
    for i, optimizer in enumerate(optimizers):
        state = {j: _part(tensors, f"optimizer{i}.{j}") for j in tensors[f"optimizer{i}"].tolist()}
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors, name):
    return {k.removeprefix(name + "."): t for k, t in tensors.items() if k.startswith(name + ".")}
