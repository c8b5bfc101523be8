"""The optimisation of a network: Muon and Adam on a copy of it, whose moving average it becomes."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from .compute import captured, one_thread

__all__ = ["Descent", "Muon"]

EMA_DECAY, MAX_GRADIENT_NORM = 0.999, 1.0
MOMENTUM = 0.95
SMALL = 3e6  # weights; below, and without images, a step is faster with one thread on a busy machine
NEWTON_SCHULZ = 3.4445, -4.775, 2.0315  # coefficients of Jordan (2024), who found that five steps are enough
SIZE_OF_ADAM = 0.2                      # root mean square of the entries of a step of Adam (Liu et al. 2025)


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
        self._small = (sum(map(torch.numel, self.weights)) < SMALL
                       and all(w.device.type == "cpu" and w.ndim <= 2 for w in self.weights))
        self._full_step = captured(self._eager_step) if cuda_graph and self.weights[0].is_cuda else self._eager_step

    def step(self, number: int, rate: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Step ``number``, from 0, with the learning rate ``rate * lr``: what ``losses`` returns after its first value.

        Raises:
            FloatingPointError: a loss that is not finite.
        """
        with one_thread(self._small and all(t.ndim != 4 for t in tensors)):
            return self._step(number, rate, *tensors)

    def _step(self, number, rate, *tensors):
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


class Muon(Optimizer):
    """Muon (Jordan 2024): momentum, whose singular values are all replaced by about 1, with Adam's size of a step.

    It computes what ``torch.optim.Muon(params, lr, weight_decay=0, adjust_lr_fn="match_rms_adamw")`` does. But that
    one always works in bfloat16. Many processors have no instructions for it: on one with AVX2, a product of 192 × 192
    matrices took 27 times as long as in float32. So bfloat16 is used on GPUs only.

    Args:
        params: matrices.
        lr: the learning rate.
    """

    def __init__(self, params: list[Tensor], lr: float):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):  # type: ignore[override]  # no closure
        for p in self.param_groups[0]["params"]:                           # its state is named as PyTorch's
            if p.grad is None:                                             # a matrix that is not used
                continue
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            momentum = self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - MOMENTUM)
            direction = _orthogonal(p.grad.lerp(momentum, MOMENTUM))
            p.add_(direction, alpha=-self.param_groups[0]["lr"] * SIZE_OF_ADAM * max(p.shape)**0.5)


def _orthogonal(matrix):
    """Nearly the orthogonal matrix U Vᵀ of a singular value decomposition U S Vᵀ, by five Newton-Schulz steps."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if x.shape[0] <= x.shape[1] else wide.T


def _optimizers(student, lr):
    """Muon for the inner matrices, and Adam for the rest."""
    inner: list[Tensor] = []
    rest: list[Tensor] = []
    for layer in student.modules():
        for p in layer.parameters(recurse=False):
            (inner if p.ndim == 2 and not hasattr(layer, "touches_data") else rest).append(p)
    muon = [Muon(inner, lr)] if inner else []
    return [*muon, *([Adam(rest, lr=lr, capturable=rest[0].is_cuda)] if rest else [])]
