"""A progress bar for training."""

from collections.abc import Iterator

from tqdm import tqdm

__all__ = ["show"]


def show(run: Iterator, steps: int) -> Iterator:
    """The same training steps, with a progress bar on a terminal (and none in a notebook or a log file)."""
    with tqdm(run, total=steps, unit="step", disable=None) as bar:
        for progress in bar:
            bar.set_postfix(loss=f"{progress.loss:.3g}", refresh=False)
            yield progress
