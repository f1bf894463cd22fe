"""What the commits of download.fetch state, put together for the report: hash verdicts, and placeholder images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from manifests.canonical import JsonValue
from stages.download.placeholders import merged

VERDICTS = ("match", "near", "differs", "unknown")


def download_facts(facts: Sequence[Mapping[str, JsonValue]]) -> dict[str, JsonValue]:
    """Return what the partitions' facts come to; a name is left out where no partition states it.

    Args:
        facts: Of each commit.

    Returns:
        ``hash_verdicts``: per source, how many rows kept have bytes that stand so to the hash it published.
        ``placeholders``: bytes that many unrelated urls gave, over all partitions (`merged` says how many).
    """
    found: dict[str, JsonValue] = {}
    if told := [cast("Mapping[str, Mapping[str, int]]", f["hash_verdicts"]) for f in facts if "hash_verdicts" in f]:
        found["hash_verdicts"] = _summed(told)
    if listed := [cast("list[dict[str, Any]]", f["placeholders"]) for f in facts if f.get("placeholders")]:
        found["placeholders"] = list[JsonValue](merged(listed))
    return found


def _summed(told: Iterable[Mapping[str, Mapping[str, int]]]) -> JsonValue:
    sums: dict[str, dict[str, int]] = {}
    for sources in told:
        for source, counts in sources.items():
            verdicts = sums.setdefault(source, dict.fromkeys(VERDICTS, 0))
            for verdict, rows in counts.items():
                verdicts[verdict] = verdicts.get(verdict, 0) + rows
    return {source: dict[str, JsonValue](verdicts) for source, verdicts in sorted(sums.items())}
