"""Checkpoints: the state of a training run in a file, and the state before it in a second one."""

import os
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from .tensors import as_read, read_tensors, shapes, write_tensors

__all__ = ["read_checkpoint", "write_checkpoint"]


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
    run, errors = as_read(run), []
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
    found = shapes(tensors)
    wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"{file} lacks a part of its run, or has one that does not fit ({', '.join(wrong[:3])})")
    if len(tensors["history"]) > run["steps"]:
        raise ValueError(f"{file} has {len(tensors['history'])} steps of a run of {run['steps']}")


def _expected(tensors, modules, optimizers, columns):
    """The names and shapes of a checkpoint with so many steps, of these parameters of each optimiser."""
    expected = {"history": (*tensors.get("history", torch.zeros(0)).shape[:1], columns)}
    for name, module in modules.items():
        expected |= {f"{name}.{k}": shape for k, shape in shapes(module.state_dict()).items()}
    for i, optimizer in enumerate(optimizers):
        parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
        used = parameters.keys() & tensors.get(f"optimizer{i}", torch.zeros(0)).flatten().tolist()
        expected[f"optimizer{i}"] = (len(used),)
        for k, like in _kept(optimizer).items():                           # numbers, or tensors like the parameter
            expected |= {f"optimizer{i}.{j}.{k}": tuple(parameters[j].shape) if like.ndim else () for j in used}
    return expected


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
