"""Python packages that are read and never installed: a model or images that somebody has published in one."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["FACES", "GALAXIES", "fetch"]

# Score models of galaxies: Sampson, Melchior et al. (the package states no licence, so it is not copied into this book)
GALAXIES = {"name": "galaxygrad", "version": "0.2.1",
            "sha256": "56fd8f02de3b025e87f690a494014371391894f2288356288068f9f5e90d8a97"}

# A generator of faces: Chien Liu, MIT licence
FACES = {"name": "gan-face-generate", "version": "1.1.1",
         "sha256": "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569"}


def fetch(name: str, version: str, sha256: str) -> Path:
    """The wheel of a package of the Python index, as a file. A wheel is a zip archive.

    The wheel is downloaded with pip, without what the package depends on, and nothing of it is installed or executed.
    It stays in the user's cache, and its SHA-256 is checked at every call.

    Args:
        name, version: of the package.
        sha256: of the wheel, as 64 hexadecimal digits.

    Raises:
        ConnectionError: pip could not download the wheel.
        ValueError: the wheel has another SHA-256.
        ModuleNotFoundError: the package platformdirs, which names the user's cache, is not installed.
    """
    wheel = _cache() / f"{name}-{version}.whl"
    if not wheel.exists():
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wheel.parent) as folder:
            found = _download(f"{name}=={version}", Path(folder), wheel)
            _check(found, sha256, f"the download of {name}")
            found.replace(wheel)
    _check(wheel, sha256, f"{wheel}, which you can delete to download it again,")
    return wheel


def _download(package: str, folder: Path, wheel: Path) -> Path:
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True)
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        reason = done.stderr.strip().rpartition("\n")[2] or f"pip ended with {done.returncode}"
        raise ConnectionError(f"pip could not download {package} ({reason}): go online, or put the wheel there "
                              f"yourself, as {wheel}")
    return found[0]


def _check(wheel: Path, sha256: str, name: str) -> None:
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(f"{name} has the SHA-256 {found} and not {sha256}: it is damaged, or not the published file")


def _cache() -> Path:
    try:
        from platformdirs import user_cache_path  # pooch would warn in a notebook
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("downloading needs platformdirs: pip install 'dimlib[images]'") from error
    return user_cache_path("dimlib")
