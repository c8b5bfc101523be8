"""What a GPU gains here: python benchmarks/gpu.py OUTPUT.CSV

Times a training step without and with the CUDA graph, and scores and samples in float32, in bfloat16 and compiled.
It takes two minutes on one GPU. The largest difference between the losses of the two trainings is a column; `share` is
the share of the speed of a bare product of two 8192 × 8192 matrices, in the precision of the column before it.
"""

import copy
import csv
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from dimlib import ScoreModel
from dimlib.networks import MLP
from dimlib.sampler import noise_schedule, reverse_diffusion
from dimlib.training import train_steps
from dimlib.vision import SecondLook, UNet

CASES = {  # network, shape of a point, batch size, precision of its products on a GPU by PyTorch's defaults
    "MLP 192 x 3": (lambda: MLP(100), (100,), 500, "float32"),
    "U-Net, 16 channels": (lambda: UNet(32), (1, 32, 32), 32, "TF32"),
    "second look, 16 channels": (lambda: SecondLook([-1.0, 1.0], unit=0.1, size=32), (1, 32, 32), 32, "TF32"),
    "second look, 64 channels":
        (lambda: SecondLook([-1.0, 1.0], unit=0.1, size=32, channels=64), (1, 32, 32), 256, "TF32"),
}


def per_second(work, n, repeats=1):
    """Items per second of a function that makes n of them, after one call that is not timed."""
    work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return n * repeats / (time.perf_counter() - started)


def operations(work):
    """Floating-point operations of a function."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def products(size=8192):
    """Floating-point operations per second of a bare matrix product, by precision."""
    rates, before = {}, torch.get_float32_matmul_precision()
    for name, dtype, setting in (("float32", torch.float32, "highest"), ("TF32", torch.float32, "high"),
                                 ("bfloat16", torch.bfloat16, "highest")):
        torch.set_float32_matmul_precision(setting)
        a = torch.randn(size, size, device="cuda", dtype=dtype)
        rates[name] = per_second(lambda a=a: a @ a, 2 * size**3, repeats=10)
    torch.set_float32_matmul_precision(before)
    return rates


def milliseconds(make, shape, batch_size, cuda_graph, steps):
    """Milliseconds of one training step, the first 20 left out, all losses, and the model."""
    torch.manual_seed(0)
    x = torch.rand(10_000, *shape)
    model = ScoreModel(make(), data_std=0.3, data_mean=0.5)
    losses = []
    for progress in train_steps(model, x, steps, batch_size, lr=2e-3, cuda_graph=cuda_graph):
        losses.append(progress.loss)
        if progress.step == 20:
            started = time.perf_counter()
    return 1e3 * (time.perf_counter() - started) / (steps - 21), torch.tensor(losses), model


def main(output: str) -> None:
    bare = products()
    rows = [{"network": "product of matrices", "precision": name, "tflops": rate / 1e12} for name, rate in bare.items()]
    for name, (make, shape, batch_size, precision) in CASES.items():
        eager, before, _ = milliseconds(make, shape, batch_size, False, 120)
        graph, after, model = milliseconds(make, shape, batch_size, True, 220)
        x = torch.rand(batch_size, *shape, device="cuda")
        cost = operations(lambda: model(x, 0.1).square().sum().backward())  # noqa: B023
        rate = cost / (graph / 1e3)
        rows.append({"network": name, "batch": batch_size, "eager_ms": eager, "graph_ms": graph,
                     "faster": eager / graph, "precision": precision, "tflops": rate / 1e12,
                     "share": rate / bare[precision],
                     "largest_difference_of_loss": ((after[:120] - before) / before).abs().max().item()})
        print(rows[-1], flush=True)
    n = 512
    x = torch.rand(n, *shape, device="cuda")
    fast = copy.deepcopy(model)
    fast.net.compile()
    with torch.no_grad():
        cost = operations(lambda: model(x, 0.1)) / n
        for denoiser, precision, compiled in ((model, "TF32", ""), (model, "bfloat16", ""),
                                              (fast, "bfloat16", ", compiled")):
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
                scores = per_second(lambda: denoiser(x, 0.1), n, repeats=5)  # noqa: B023
                samples = per_second(lambda: reverse_diffusion(  # noqa: B023
                    denoiser, n, shape, noise_schedule(0.01, 1.0, 20), device="cuda", batch_size=n), n)  # noqa: B023
            rows.append({"network": name + compiled, "batch": n, "precision": precision,
                         "tflops": scores * cost / 1e12, "share": scores * cost / bare[precision],
                         "scores_per_second": scores, "samples_per_second": samples})
            print(rows[-1], flush=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(output, "w", newline="") as file:
        table = csv.DictWriter(file, [*columns, "device"], lineterminator="\n")
        table.writeheader()
        for row in rows:
            numbers = {name: f"{x:.4g}" if isinstance(x, float) else x for name, x in row.items()}
            table.writerow(numbers | {"device": torch.cuda.get_device_name()})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
