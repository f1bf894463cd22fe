"""Print the requirements of an image, a line each: ``requirements.py PYPROJECT [EXTRA,EXTRA]``.

The dependencies are installed in a layer of their own, before the code is there: a changed line of code then costs
seconds of rebuilding, not gigabytes of wheels.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """Return the dependencies of a pyproject.toml with those of its extras.

    Args:
        pyproject: The text of the file.
        extras: Names of its optional dependencies.

    Raises:
        SystemExit: If it has no such extra; the message names those it has.
    """
    project = tomllib.loads(pyproject)["project"]
    known = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in known]:
        raise SystemExit(f"EXTRAS: no extra {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return [*project["dependencies"], *(line for extra in extras for line in known[extra])]


def main() -> None:
    """Read the file that the first argument names."""
    extras = [name for name in "".join(sys.argv[2:3]).split(",") if name]
    sys.stdout.write("\n".join(requirements(Path(sys.argv[1]).read_text("utf-8"), extras)) + "\n")


if __name__ == "__main__":
    main()
