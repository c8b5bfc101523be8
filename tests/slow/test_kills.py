"""Training that is killed, or whose disk is full, goes on from its last checkpoint and ends with the same weights."""

import os
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch

pytestmark = [
    pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals and limits are those of POSIX"),
    pytest.mark.skipif("DIMLIB_LONG" not in os.environ, reason="takes minutes: set DIMLIB_LONG=1")]

TRAIN = """
import sys, torch, dimlib
from dimlib import networks
torch.set_num_threads(1)
torch.manual_seed(0)
x = dimlib.manifolds.Sphere(2, 6).sample(300, seed=1)
model = dimlib.ScoreModel.for_data(networks.MLP(6, width=32), x)
dimlib.train(model, x, 300, batch_size=50, device="cpu", checkpoint=sys.argv[1], checkpoint_every=3)
model.save(sys.argv[2])
"""
LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
"""


def command(folder, before=""):
    return [sys.executable, "-c", before + TRAIN, str(folder / "checkpoint"), str(folder / "model")]


def start(folder):
    return subprocess.Popen(command(folder))


def weights(folder):
    return safetensors.torch.load_file(folder / "model")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder).wait() == 0
    return weights(folder)


def test_killed_again_and_again(whole, tmp_path):
    """Each kill comes some milliseconds after a new checkpoint, so that some come while the next one is written."""
    kills, checkpoint = 0, tmp_path / "checkpoint"
    for attempt in range(25):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start(tmp_path)
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(0.002 * attempt)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if (tmp_path / "model").exists():
            break
    assert kills >= 3
    if not (tmp_path / "model").exists():
        assert start(tmp_path).wait() == 0
    found = weights(tmp_path)
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items()) and len(found) == len(whole)


def test_a_full_disk_leaves_the_last_checkpoint(whole, tmp_path):
    process = start(tmp_path)
    while not (tmp_path / "checkpoint.previous").exists():
        assert process.poll() is None, "the training ended before its second checkpoint"
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = {path.name for path in tmp_path.iterdir()}                    # a killed process can leave a .part
    full = subprocess.run(command(tmp_path, LIMIT), capture_output=True, text=True)
    assert full.returncode != 0 and "File too large" in full.stderr
    assert {path.name for path in tmp_path.iterdir()} <= before
    again = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert all(torch.equal(weights(tmp_path)[name], tensor) for name, tensor in whole.items())
