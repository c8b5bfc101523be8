"""The workflow through Slurm gives the numbers that it gives without: the quick profile, with every run made small.

Only where it is asked for, with Slurm installed (book/cluster.md): make test-slow
"""

import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pandas as pd
import papermill
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SMALL = {"n_data": 500, "steps": 50, "batch_size": 100, "n_points": 5}
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("DIMLIB_SLURM") != "1", reason="takes minutes: set DIMLIB_SLURM=1"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of Slurm need root"),
    pytest.mark.skipif(not shutil.which("slurmctld", path=PATH), reason="Slurm is not installed, see book/cluster.md"),
]


@pytest.fixture
def checkout(tmp_path):
    """What a run reads, in a folder of its own, with the quick profile's experiments made small."""
    for folder in ("config", "notebooks", "results", "workflow"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    experiments = yaml.safe_load((ROOT / "config/quick.yaml").read_text())["experiments"]
    for part in chain.from_iterable(experiments.values()):
        known = papermill.inspect_notebook(ROOT / f"notebooks/{part['notebook']}.ipynb")
        small = {name: value for name, value in SMALL.items() if name in known and name not in part["grid"]}
        part["parameters"] = part.get("parameters", {}) | small
    for profile in ("local", "slurm"):
        config = {"profile": profile, "tables": f"tables/{profile}", "experiments": experiments}
        (tmp_path / f"config/{profile}.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def snakemake(checkout, profile, *options, before=()):
    command = [*before, "snakemake", "-s", "workflow/Snakefile", "--profile", "workflow/profiles/quick",
               "--configfile", f"config/{profile}.yaml", *options]
    interruptible = ["timeout", "--signal=INT", "1800", *command]  # a kill would leave the daemons behind
    environment = os.environ | {"PATH": PATH, "PYTHONHASHSEED": "0"}
    done = subprocess.run(interruptible, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_slurm_gives_the_numbers_of_a_local_run(checkout):
    snakemake(checkout, "local")
    log = snakemake(checkout, "slurm", "--workflow-profile", "workflow/profiles/slurm",
                    "--slurm-init-seconds-before-status-checks", "3", before=["workflow/slurm_here.sh"])
    runs = list(checkout.glob("runs/local/*/*/run.ipynb"))
    assert log.count("has been submitted with SLURM jobid") >= len(runs) > 0
    for local in sorted(checkout.glob("tables/local/*.csv")):
        tables = [pd.read_csv(path) for path in (local, checkout / f"tables/slurm/{local.name}")]
        seconds = [column for column in tables[0] if column.startswith("seconds")]
        pd.testing.assert_frame_equal(*(table.drop(columns=seconds) for table in tables), check_exact=True)
