"""What a GPU gains here: python workflow/gpu.py OUTPUT.CSV

Times a training step without and with the CUDA graph, and scores and samples in float32, in bfloat16 and compiled.
It takes a few minutes on one GPU. The largest difference between the losses of the two trainings is a column.
"""

import copy
import csv
import sys
import time

import torch

from dimlib import ScoreModel
from dimlib.networks import MLP
from dimlib.sampler import noise_schedule, reverse_diffusion
from dimlib.training import train_steps
from dimlib.vision import SecondLook, UNet

CASES = {  # network, shape of a point, batch size
    "MLP 192 x 3": (lambda: MLP(100), (100,), 500),
    "U-Net, 16 channels": (lambda: UNet(32), (1, 32, 32), 32),
    "second look, 16 channels": (lambda: SecondLook([-1.0, 1.0], unit=0.1, size=32), (1, 32, 32), 32),
    "second look, 64 channels": (lambda: SecondLook([-1.0, 1.0], unit=0.1, size=32, channels=64), (1, 32, 32), 256),
}


def milliseconds(make, shape, batch_size, cuda_graph, steps):
    """Milliseconds of one training step, the first 20 left out, and all losses."""
    torch.manual_seed(0)
    x = torch.rand(10_000, *shape)
    model = ScoreModel(make(), data_std=0.3, data_mean=0.5)
    run = train_steps(model, x, steps, batch_size, lr=2e-3, cuda_graph=cuda_graph)
    losses = []
    for progress in run:
        losses.append(progress.loss)
        if progress.step == 20:
            started = time.perf_counter()
    return 1e3 * (time.perf_counter() - started) / (steps - 21), torch.tensor(losses), model


def per_second(work, n):
    """Items per second of a function that makes n of them, after one call that is not timed."""
    work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return n / (time.perf_counter() - started)


@torch.no_grad()
def main(output: str) -> None:
    rows = []
    for name, (make, shape, batch_size) in CASES.items():
        with torch.enable_grad():
            eager, before, _ = milliseconds(make, shape, batch_size, False, 120)
            graph, after, model = milliseconds(make, shape, batch_size, True, 220)
        apart = ((after[:120] - before) / before).abs().max().item()
        rows.append({"network": name, "batch": batch_size, "eager_ms": eager, "graph_ms": graph,
                     "faster": eager / graph, "largest_difference_of_loss": apart})
        print(rows[-1], flush=True)
    n = 512
    x = torch.rand(n, *shape, device="cuda")
    fast = copy.deepcopy(model)
    fast.net.compile()
    for name, denoiser, precision in (("float32", model, torch.float32), ("bfloat16", model, torch.bfloat16),
                                      ("bfloat16 compiled", fast, torch.bfloat16)):
        with torch.autocast("cuda", torch.bfloat16, enabled=precision is torch.bfloat16):
            scores = per_second(lambda: denoiser(x, 0.1), n)  # noqa: B023
            samples = per_second(lambda: reverse_diffusion(denoiser, n, shape, noise_schedule(0.01, 1.0, 20),  # noqa: B023
                                                           device="cuda", batch_size=n), n)
        rows.append({"network": f"second look, 64 channels, {name}", "batch": n, "scores_per_second": scores,
                     "samples_per_second": samples})
        print(rows[-1], flush=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(output, "w", newline="") as file:
        table = csv.DictWriter(file, [*columns, "device"], lineterminator="\n")
        table.writeheader()
        table.writerows([row | {"device": torch.cuda.get_device_name()} for row in rows])


if __name__ == "__main__":
    main(*sys.argv[1:])
