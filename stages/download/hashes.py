"""What a source published about an image's bytes, held against the bytes that came.

Verdicts are recorded with every row; whether a row leaves for one is a setting, judged where rows are (`fetch`).
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from stages.decode import DecodeError, decode
from stages.phash import phash

MATCH, NEAR, DIFFERS, UNKNOWN = "match", "near", "differs", "unknown"

NEAR_BITS = 10
"""Bits of 64 that a perceptual hash may be off and still be of the same picture.

Measured with `phash` on 468 pictures (150 generated, 150 photographs, 18 more, 150 small remote-sensing chips) and 14
copies of each: JPEG at quality 95 to 15, five sizes from twice to an eighth, nearest-neighbour halves, squares, WebP.
99.86 % of the copies of the chips lie within 10 bits, every copy of the others within 8. Of 33,678 pairs of different
pictures none lies within 12 (mean 31.5, standard deviation 4.1, least 14). The radius of duplicate removal is smaller
because there every picture meets every other; here one meets one.
"""

LEAST_JUDGED_ROWS = 50
SHARE_DIFFERS = 0.9
"""From how many judged rows, and from what share of them that differ, a source's hashes are suspect.

Pictures of the open web are encoded anew over the years, so md5 and sha256 of an honest column may differ for most
rows. A column that still holds for one row in four shows 45 of 50 that differ with a chance below 1 in 100; one that is
a hash of something else (of url and text, say) differs in all rows, by chance within `NEAR_BITS` in 1 of 100 million.
"""

_DIGITS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {"md5": re.compile("[0-9a-f]{32}"), "sha256": re.compile("[0-9a-f]{64}"), "phash64": re.compile("[0-9a-f]{16}")}
)
_INTEGER = re.compile("-?[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Published:
    """One row, the hash its source published, and the body it got.

    Attributes:
        sample_id: Of the row.
        source: Source key.
        kind: md5, sha256 or phash64; None where the source publishes none.
        value: The hash as published; None where the row has none.
        sha256: Of the body, hex.
    """

    sample_id: str
    source: str
    kind: str | None
    value: str | None
    sha256: str


def needs_body(kind: str | None) -> bool:
    """Tell whether a verdict on this kind needs the bytes: the sha256 of every body is known, other hashes are not."""
    return kind in {"md5", "phash64"}


def hash_verdicts(rows: Sequence[Published], body: Callable[[str], bytes], max_pixels: int) -> dict[str, str]:
    """Judge published hashes.

    md5 and sha256 are hex digits, in any case, with or without spaces. phash64 is 16 hex digits as `imagehash` writes
    them and COYO publishes them (first bit highest), or the same 64 bits as a decimal integer, signed or not; 16
    characters are always read as hex. Anything else is no hash.

    Args:
        rows: The rows; sample ids are unique.
        body: Returns the bytes of a sha256. Asked once at most for each, and only where a row needs the bytes.
        max_pixels: Pictures of more pixels are not decoded.

    Returns:
        Verdict by sample id, for every row: match; near (phash64: up to `NEAR_BITS` bits are off); differs; unknown
        (nothing published, no hash, or bytes that do not decode).
    """
    verdicts = dict.fromkeys((row.sample_id for row in rows), UNKNOWN)
    of_body: dict[str, list[tuple[Published, str | int]]] = defaultdict(list)
    for row in rows:
        if (wanted := _read(row.kind, row.value)) is not None:
            of_body[row.sha256].append((row, wanted))
    for sha256, judged in of_body.items():
        kinds = {row.kind for row, _ in judged}
        held = body(sha256) if any(map(needs_body, kinds)) else b""
        found = {kind: _hash(kind, held, sha256, max_pixels) for kind in sorted(filter(None, kinds))}
        for row, wanted in judged:
            verdicts[row.sample_id] = _verdict(wanted, found[str(row.kind)])
    return verdicts


def tally(rows: Sequence[Published], verdicts: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Count verdicts.

    Args:
        rows: The rows; those without a published value are left out.
        verdicts: Verdict by sample id.

    Returns:
        Source to verdict to rows, sorted by name; only sources that publish a hash, only verdicts that occur.
    """
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        if row.kind is not None and row.value is not None:
            of_source = counts.setdefault(row.source, {})
            verdict = verdicts[row.sample_id]
            of_source[verdict] = of_source.get(verdict, 0) + 1
    return {source: dict(sorted(counts[source].items())) for source in sorted(counts)}


def suspicions(counts: Mapping[str, Mapping[str, int]], kinds: Mapping[str, str] | None = None) -> list[str]:
    """Name the sources whose published hashes are hardly of these images.

    Args:
        counts: What `tally` counted, over as many partitions as there are.
        kinds: Kind of hash by source, to be named.

    Returns:
        One line a source, sorted, of which at least `LEAST_JUDGED_ROWS` rows were judged (unknown is no judgement) and
        at least the share `SHARE_DIFFERS` of those differ.
    """
    lines = []
    for source, of_source in sorted(counts.items()):
        differ = of_source.get(DIFFERS, 0)
        judged = differ + of_source.get(MATCH, 0) + of_source.get(NEAR, 0)
        if judged >= LEAST_JUDGED_ROWS and differ >= SHARE_DIFFERS * judged:
            what = f"{kinds[source]} values" if kinds and source in kinds else "hashes"
            lines.append(
                f"{source}: {100 * differ // judged}% of {judged} published {what} differ from the bytes: the column "
                "is hardly a hash of these images. Nothing is dropped while download.on_hash_differs is keep; else "
                f"correct [sources.{source}] columns or take keep"
            )
    return lines


def _read(kind: str | None, value: str | None) -> str | int | None:
    """Read a published value: hex digits in lower case, or the 64 bits; None where it is no hash of its kind."""
    if kind is None or kind not in _DIGITS or value is None:
        return None
    digits = "".join(value.split()).lower()
    if _DIGITS[kind].fullmatch(digits):
        return int(digits, 16) if kind == "phash64" else digits
    if kind == "phash64" and _INTEGER.fullmatch(digits) and -(2**63) <= (bits := int(digits)) < 2**64:
        return bits % 2**64
    return None


def _hash(kind: str, body: bytes, sha256: str, max_pixels: int) -> str | int | None:
    if kind == "sha256":
        return sha256.lower()
    if kind == "md5":
        return hashlib.md5(body, usedforsecurity=False).hexdigest()
    try:
        return phash(decode(body, max_pixels).luma32)
    except DecodeError:
        return None


def _verdict(wanted: str | int, found: str | int | None) -> str:
    if found is None:
        return UNKNOWN
    if wanted == found:
        return MATCH
    if isinstance(wanted, int) and isinstance(found, int) and (wanted ^ found).bit_count() <= NEAR_BITS:
        return NEAR
    return DIFFERS
