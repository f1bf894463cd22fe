"""`rs5m-build report --html DIR`: writes the page of a build, its pictures first and its index last."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manifests.recipe import Recipe
from manifests.store import TEMPORARY_PREFIX, Store
from pipeline.errors import UserError, is_disk_full
from pipeline.page.facts import Facts, read_facts
from pipeline.page.layout import GENERATOR, report_page
from pipeline.page.pictures import FOLDER, Album
from pipeline.page.small_pictures import SmallPicture, small_pictures
from pipeline.page.tables import names_of
from pipeline.planner import Planner

_INDEX = "index.html"
_PICTURE = re.compile(r"[0-9a-f]{16}\.jpg")
_HEAD_BYTES = 2048


def write_report_page(recipe: Recipe, store: Store, planner: Planner, report: Mapping[str, Any], folder: str) -> Path:
    """Write the page of a build; equal builds give equal files.

    Args:
        recipe: The current recipe.
        store: The workdir.
        planner: Plans over it.
        report: The document of `pipeline.report.make_report`.
        folder: A local folder, made if need be: new, empty, or one that held such a page, which is replaced.

    Returns:
        The path of its index.html.

    Raises:
        UserError: If the folder cannot be used: says what is in the way.
        CorruptFileError: If a table cannot be read.
        OSError: If there is no space left.
    """
    target = _folder(folder)
    facts = read_facts(store, planner, report)
    try:
        (target / FOLDER).mkdir(parents=True, exist_ok=True)
        album = _album(recipe, store, report, facts, target / FOLDER) if facts else None
        _write(target / _INDEX, report_page(report, facts, album).encode())
        _remove_others(target, album)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise UserError(f"--html {folder}: cannot be written: {error}") from error
    return target / _INDEX


def _folder(folder: str) -> Path:
    """Return the folder if nothing but a page of ours is in it: nobody else's file is ever replaced or removed."""
    if "://" in folder:
        raise UserError(f"--html {folder}: write the page to a local folder, then copy it")
    target = Path(folder)
    try:
        foreign = next((path for path in sorted(target.iterdir()) if not _is_ours(path)), None)
    except FileNotFoundError:
        return target
    except OSError as error:
        raise UserError(f"--html {folder}: is no folder that can be read: {error}") from error
    if foreign is not None:
        raise UserError(f"--html {folder}: {foreign} was not written by a report; name a new or an empty folder")
    return target


def _is_ours(path: Path) -> bool:
    if path.name.startswith(TEMPORARY_PREFIX):
        return path.is_file()
    if path.name == FOLDER:
        return path.is_dir() and not path.is_symlink() and all(map(_is_picture, path.iterdir()))
    if path.name != _INDEX or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(_HEAD_BYTES)


def _is_picture(path: Path) -> bool:
    named = _PICTURE.fullmatch(path.name) is not None or path.name.startswith(TEMPORARY_PREFIX)
    return named and path.is_file() and not path.is_symlink()


def _album(recipe: Recipe, store: Store, report: Mapping[str, Any], facts: Facts, folder: Path) -> Album:
    """Write the pictures, each once; they are let go of as they are written."""
    pictures: dict[str, SmallPicture | str] = {}
    places = [card.place for card in facts.cards.values() if card.place]
    for sha256, found in small_pictures(store, places, recipe.dedup.max_pixels):
        if isinstance(found, SmallPicture):
            _write(folder / f"{found.name}.jpg", found.body)
            found = SmallPicture(found.name, b"", found.width, found.height)
        pictures[sha256] = found
    return Album(facts.cards, pictures, names_of(report), facts.rule, facts.leaked)


def _write(path: Path, body: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_others(target: Path, album: Album | None) -> None:
    """Remove the pictures of an earlier page, and what an interrupted one left."""
    pictures = album.pictures.values() if album else ()
    wanted = {f"{picture.name}.jpg" for picture in pictures if isinstance(picture, SmallPicture)}
    for path in (target / FOLDER).iterdir():
        if path.name not in wanted:
            path.unlink()
    for path in target.glob(f"{TEMPORARY_PREFIX}*"):
        path.unlink()
