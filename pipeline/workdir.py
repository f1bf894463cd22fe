"""The workdir: opening it, and the one file that says which recipe it belongs to."""

from __future__ import annotations

import json

from manifests.manifest import FORMAT
from manifests.store import AlreadyThereError, Store
from pipeline.errors import is_disk_full


class WorkdirError(Exception):
    """A workdir that cannot be used: one line that says what was found and what to do."""


def open_workdir(store: Store, recipe: str, *, create: bool) -> None:
    """Check that the workdir belongs to this format and recipe; create ``workdir.json`` if it is new.

    Raises:
        WorkdirError: If it belongs to another, or is new and not to be created.
    """
    found = read_workdir(store)
    if found is None:
        if not create:
            raise WorkdirError(f"{store.uri} is no workdir: there is no workdir.json; run `rs5m-build run` first")
        try:
            store.check_exclusive_create()
            store.create(
                "workdir.json", json.dumps({"format": FORMAT, "recipe": recipe}, sort_keys=True).encode() + b"\n"
            )
        except AlreadyThereError:
            return open_workdir(store, recipe, create=False)
        except OSError as error:
            if is_disk_full(error):
                raise
            raise WorkdirError(f"{store.uri} cannot be made a workdir: {error}; use another --workdir") from error
        return None
    if found.get("format") != FORMAT:
        raise WorkdirError(
            f"{store.uri} has format {found.get('format')}, this version writes format {FORMAT}; use another --workdir"
        )
    if found.get("recipe") != recipe:
        raise WorkdirError(
            f"{store.uri} belongs to recipe {found.get('recipe')!r}, not {recipe!r}; use another --workdir"
        )
    return None


def read_workdir(store: Store) -> dict[str, object] | None:
    """Return what ``workdir.json`` says, or None if there is none."""
    try:
        return dict(json.loads(store.read("workdir.json")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WorkdirError(f"{store.uri} cannot be used as a workdir: {error}; use another --workdir") from error
    except (ValueError, TypeError) as error:
        raise WorkdirError(f"{store.uri}/workdir.json is not readable: {error}") from error
