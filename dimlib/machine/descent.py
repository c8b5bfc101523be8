"""The optimisation of a network: Muon and Adam on a copy of it, whose moving average it becomes."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam, Muon

from .compute import captured

__all__ = ["Descent"]

EMA_DECAY, MAX_GRADIENT_NORM = 0.999, 1.0


class Descent:
    """Optimise a model. Its weights are the exponential moving average of those of ``student``, a copy.

    Muon (Jordan 2024) optimises the matrices between the outer layers, with the step size of Adam; Adam optimises
    vectors, and the layers that are marked with ``touches_data``. The norm of the gradients is limited to 1.

    Args:
        model: the model, on its device.
        losses: a function of a model and tensors. It returns the loss to minimise and any number of other tensors.
        lr: the largest learning rate.
        cuda_graph: on a CUDA GPU, run the steps as one CUDA graph.
    """

    def __init__(self, model: nn.Module, losses: Callable, lr: float, cuda_graph: bool = True):
        self.model, self.losses, self.lr = model, losses, lr
        self.student = copy.deepcopy(model).train()
        self.weights: list[Tensor] = list(self.student.parameters())
        self._before = [w.detach().clone() for w in self.weights]
        self.optimizers = _optimizers(self.student, lr)
        self._full_step = captured(self._eager_step) if cuda_graph and self.weights[0].is_cuda else self._eager_step

    def step(self, number: int, rate: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Step ``number``, from 0, with the learning rate ``rate * lr``: what ``losses`` returns after its first value.

        Raises:
            FloatingPointError: a loss that is not finite.
        """
        with torch.no_grad():                                              # a copy with gradients breaks CUDA graphs
            torch._foreach_copy_(self._before, self.weights)
        loss, *others = self._full_step(*tensors)                          # with the learning rate lr
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss at step {number} is {loss.item()}: lower lr={self.lr:g}, or scale the "
                                     "data")
        with torch.no_grad():
            torch._foreach_lerp_(self.weights, self._before, 1 - rate)
            decay = min(EMA_DECAY, (1 + number) / (10 + number))
            torch._foreach_lerp_(list(self.model.parameters()), self.weights, 1 - decay)
            for ours, theirs in zip(self.model.buffers(), self.student.buffers(), strict=True):
                ours.copy_(theirs)
        return tuple(others)

    def _eager_step(self, *tensors):
        values = self.losses(self.student, *tensors)
        self.student.zero_grad()
        values[0].backward()
        nn.utils.clip_grad_norm_(self.weights, MAX_GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        return tuple(value.detach() for value in values)


def _optimizers(student, lr):
    """Muon for the inner matrices, and Adam for the rest."""
    inner: list[Tensor] = []
    rest: list[Tensor] = []
    for layer in student.modules():
        for p in layer.parameters(recurse=False):
            (inner if p.ndim == 2 and not hasattr(layer, "touches_data") else rest).append(p)
    muon = [Muon(inner, lr=lr, weight_decay=0, adjust_lr_fn="match_rms_adamw")] if inner else []
    return [*muon, Adam(rest, lr=lr, capturable=rest[0].is_cuda)]
