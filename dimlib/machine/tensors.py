"""Files of tensors (safetensors with a JSON entry in the header): models, checkpoints; files replaced in one step."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Saved", "known", "read_checkpoint", "read_tensors", "register", "replacing", "write_checkpoint",
           "write_tensors"]

_KNOWN: dict[str, type[nn.Module]] = {}


def register(network: type[nn.Module]) -> type[nn.Module]:
    """Class decorator: a saved model may name this network, and is loaded as ``network(**config)``.

    Its instances need an attribute ``config``: the arguments of ``__init__``, as numbers, texts and lists.
    """
    _KNOWN[network.__name__] = network
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
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        umask = os.umask(0)
        os.umask(umask)
        unfinished.chmod(0o666 & ~umask)                                   # mkstemp lets only its owner read
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_tensors(tensors: dict[str, Tensor], path: str | Path, header: dict[str, str]) -> None:
    """Write a safetensors file with the given header; an old file is replaced at the end, in one step."""
    with replacing(path) as unfinished:
        safetensors.torch.save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, unfinished, header)


def read_tensors(path: str | Path, entry: str) -> tuple[dict[str, Tensor], dict]:
    """The tensors and one entry of the header of a file from `write_tensors`; ``ValueError`` for any other file."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            header = (file.metadata() or {})[entry]
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path} has no {entry!r} entry in a safetensors header: it is no such file") from error
    return safetensors.torch.load_file(str(path)), json.loads(header)


class Saved(nn.Module):
    """A module with a network ``net`` and a ``config`` (the other arguments of its ``__init__``) that has files."""

    def save(self, path: str | Path) -> None:
        """Write a safetensors file. ``ValueError`` for a network that is not registered, since it could not be read."""
        name = type(self.net).__name__
        known(name)
        header = self.config | {"network": name, "network_config": self.net.config}
        write_tensors(self.state_dict(), path, {"score_model": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu"):
        """Read a model that ``save`` wrote. ``ValueError`` for any other file."""
        weights, config = read_tensors(path, "score_model")
        net = known(config.pop("network"))(**config.pop("network_config"))
        model = cls(net, data_mean=weights["data_mean"], **config)
        model.load_state_dict(weights)
        return model.to(device)


def write_checkpoint(path: str | Path, run: dict, history: list[tuple], modules: dict[str, nn.Module],
                     optimizers: list[Optimizer]) -> None:
    """Write the state of a training run.

    Args:
        run: what identifies the run, as JSON: `read_checkpoint` refuses another one.
        history: one row of numbers for each step.
        modules: networks by name.
        optimizers: their optimisers.
    """
    tensors = {"history": torch.tensor(history, dtype=torch.float64)}
    for name, module in modules.items():
        tensors |= {f"{name}.{k}": t for k, t in module.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for j, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{i}.{j}.{k}": t for k, t in state.items()}
    write_tensors(tensors, path, {"training": json.dumps(run)})


def read_checkpoint(path: str | Path, run: dict, modules: dict[str, nn.Module],
                    optimizers: list[Optimizer]) -> list[list[float]]:
    """Put the state that `write_checkpoint` wrote into the modules and optimisers, and return the history.

    The history is empty, and nothing changes, where there is no such file. ``ValueError`` for a file of another run.
    """
    if not Path(path).exists():
        return []
    tensors, header = read_tensors(path, "training")
    if header != run:
        differing = ", ".join(key for key in run if header.get(key) != run[key])
        raise ValueError(f"{path} belongs to another run, with other {differing}: delete it, or name another file")

    def part(name):
        return {k.removeprefix(name + "."): t for k, t in tensors.items() if k.startswith(name + ".")}

    for name, module in modules.items():
        module.load_state_dict(part(name))
    for i, optimizer in enumerate(optimizers):
        state = {}
        for key, tensor in part(f"optimizer{i}").items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return tensors["history"].tolist()
