"""Reads the text files of [exclude]: one entry a line, checked, in the one spelling that is compared.

Blank lines and lines that begin with ``#`` are passed over; a ``#`` further on is part of the entry, as urls have it. A
list is read some MiB at a time and its entries are held once, so that a long list costs little more than its size.
"""

from __future__ import annotations

import codecs
import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO
from urllib.parse import unquote

import polars as pl
from yarl import URL

from manifests.recipe_files import RecipeError
from manifests.store import Store
from stages.places import host_of
from stages.uris import open_uri

MAX_LINE_BYTES = 64 << 10
MAX_FILE_BYTES = 1 << 30

_BLOCK_BYTES = 4 << 20
_DIGESTED_ENTRIES = 1 << 16
_SHOWN_CHARACTERS = 80
_SAMPLE_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+_-]*:.+", re.DOTALL)
_MAX_HOST_CHARACTERS = 253
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


def read_list(store: Store, kind: str, uri: str) -> pl.Series:
    """Return the entries of one list as they are compared, sorted, each once.

    Raises:
        RecipeError: If it is missing, unreadable or too large, or if an entry is not what the list holds: names the
            file, and of an entry the line.
    """
    where = f"exclude.{kind}: {uri}"
    batches = [pl.Series(dtype=pl.String)]
    try:
        with open_uri(store, uri) as file:
            for number, lines in _blocks(file, where):
                read = (_entry(kind, line, f"{where}, line {at}") for at, line in enumerate(lines, number))
                batches.append(pl.Series([entry for entry in read if entry], dtype=pl.String).unique())
    except FileNotFoundError as error:
        raise RecipeError(f"{where}: no such file; a relative name is looked for below the workdir") from error
    except (OSError, ImportError, ValueError) as error:  # the last two: fsspec's words about a protocol
        raise RecipeError(f"{where}: cannot be read: {error}") from error
    return pl.concat(batches).unique().sort()


def _blocks(file: BinaryIO, where: str) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (number of the first line, lines): some MiB at a time, whatever the file."""
    number, taken = 1, 0
    rest = file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
    while block := file.read(_BLOCK_BYTES):
        taken += len(block)
        if taken > MAX_FILE_BYTES:
            raise RecipeError(f"{where}: is larger than {MAX_FILE_BYTES >> 20} MiB; is it a list of entries at all?")
        *lines, rest = (rest + block).split(b"\n")
        yield number, lines
        number += len(lines)
        if len(rest) > MAX_LINE_BYTES:
            break
    yield number, [rest]


def _entry(kind: str, line: bytes, where: str) -> str | None:
    """Return one line's entry, None for a line without one."""
    if len(line) > MAX_LINE_BYTES:
        raise RecipeError(f"{where}: is longer than {MAX_LINE_BYTES >> 10} KiB; write one entry a line")
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise RecipeError(f"{where}: is no UTF-8; save the list as UTF-8 text") from error
    if not text or text.startswith("#"):
        return None
    try:
        return _READERS[kind](text)
    except ValueError as error:
        shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}.."
        raise RecipeError(f"{where}: {shown!r} {error}") from error


def _id(text: str) -> str:
    if _SAMPLE_ID.fullmatch(text.lower()):
        return text.lower()
    name, _, suffix = text.rpartition(".")
    if "_" in name[1:-1] and suffix.isascii() and suffix.isalnum() and "/" not in name and len(name.split()) == 1:
        return name
    raise ValueError(
        "is neither a sample id (32 hex digits) nor the name of a released image (SOURCE_NAME.jpg); urls go into "
        "exclude.urls, digests of bytes into exclude.sha256"
    )


def _url(text: str) -> str:
    if _URL.fullmatch(text):
        return text
    raise ValueError("is no whole url; write it as published, with its scheme; hosts go into exclude.hosts")


def _host(text: str) -> str:
    if text.startswith((".", "*.")):
        raise ValueError(f"is no host; write {text.lstrip('*.')}: its subdomains are meant with it")
    host = plain_host(text.removeprefix("[").removesuffix("]"))
    if _is_name(host) or _is_ipv6(host):
        return host
    inside = host_of(text if "://" in text else f"//{text}")
    wanted = inside if _is_name(plain_host(inside)) else "one host a line, such as example.org"
    raise ValueError(f"is no host; write {wanted}")


def _sha256(text: str) -> str:
    if _SHA256.fullmatch(text.lower()):
        return text.lower()
    raise ValueError("is no sha256; write 64 hex digits a line and nothing beside them")


_READERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"ids": _id, "urls": _url, "hosts": _host, "sha256": _sha256}
)


def plain_host(host: str) -> str:
    """Return a host in the one spelling that is compared: lower case, ASCII, without the root's dot."""
    host = unquote(host).lower() if "%" in host else host.lower()
    if ":" in host:
        return str(ipaddress.IPv6Address(host)) if _is_ipv6(host) else host
    if not host.isascii():
        try:
            host = (URL.build(scheme="http", host=host).raw_host or host).lower()
        except ValueError:  # no name that could be looked up: compared as it stands
            return host
    return host.removesuffix(".")


def _is_name(host: str) -> bool:
    return len(host) <= _MAX_HOST_CHARACTERS and bool(_HOST.fullmatch(host))


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def digest_of(entries: pl.Series) -> str:
    """Return 64 hex digits over the entries, the same however they are ordered or commented; empty without any."""
    if not entries.len():
        return ""
    digest = hashlib.sha256()
    for start in range(0, entries.len(), _DIGESTED_ENTRIES):
        digest.update("".join(f"{entry}\n" for entry in entries.slice(start, _DIGESTED_ENTRIES)).encode("utf-8"))
    return digest.hexdigest()
