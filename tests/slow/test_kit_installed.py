"""The workshop kit in an empty folder and an empty environment, as a participant has it.

Only where it is asked for, because it installs everything anew: make test-slow
"""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("DIMLIB_KIT") != "1", reason="installs PyTorch: set DIMLIB_KIT=1"),
]


def test_the_kit_installs_and_its_notebooks_run(tmp_path):
    subprocess.run([sys.executable, ROOT / "workflow/kit.py", tmp_path / "kit.zip"], check=True)
    zipfile.ZipFile(tmp_path / "kit.zip").extractall(tmp_path)
    kit = tmp_path / "dimlib-kit"
    venv.create(kit / "env", with_pip=True)

    def run(*command):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([kit / "env/bin/python", "-m", *command], cwd=kit, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("pip", "install", "-r", "requirements.txt")
    execute = ["nbconvert", "--to", "notebook", "--execute", "--stdout"]
    assert "Everything works." in run(*execute, "check_setup.ipynb")
    chapter = run(*execute, "--allow-errors", "notebooks/01_manifolds_and_noise.ipynb")
    assert chapter.count('"output_type": "error"') == 2  # the two exercises that nobody has answered
    assert chapter.count('"ename": "NotImplementedError"') == 2
