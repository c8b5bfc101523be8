"""Files of models: which networks may be in them, and what is checked before one is built."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .tensors import as_read, read_tensors, shapes, write_tensors

__all__ = ["Saved", "known", "register"]

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
        header = as_read(self.config | {"network": name, "network_config": self.net.config})
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
    if shapes(net.state_dict()) != shapes(found):
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


def _size(tensors):
    """The number of bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
