"""An explanation as JSON, and for people."""

from __future__ import annotations

import re
from dataclasses import asdict

from manifests.canonical import JsonValue
from manifests.manifest import FORMAT
from pipeline.explain import Explanation, Sample

_UNUSUAL = re.compile(r"[^\x20-\x7e]")


def explanation_document(found: Explanation) -> dict[str, JsonValue]:
    """Return an explanation as JSON (contracts, section 8)."""
    return {
        "format": FORMAT,
        "query": found.query,
        "matched_by": found.matched_by,
        "samples": [_sample_document(sample) for sample in found.samples],
        "note": found.note,
    }


def _sample_document(sample: Sample) -> JsonValue:
    return {
        "sample_id": sample.sample_id,
        "source": sample.source,
        "state": sample.state,
        "reason": sample.last.reason,
        "history": [asdict(entry) for entry in sample.history],
    }


def explanation_lines(found: Explanation) -> list[str]:
    """Return an explanation for people: a block a step. What the web wrote is shown without control characters."""
    lines: list[str] = []
    for sample in found.samples:
        why = f" ({sample.last.reason})" if sample.last.reason else ""
        lines.append(f"{sample.sample_id}  {sample.source}  {sample.state.replace('_', ' ')}{why}")
        for entry in sample.history:
            reason = f": {entry.reason}" if entry.reason else ""
            lines.append(f"  {entry.step}/{entry.partition} @{entry.commit}  {entry.verdict}{reason}")
            for name, value in {**entry.evidence, **entry.values}.items():
                lines += _lines(name, value)
        lines.append("")
    return lines + ([found.note] if found.note else [])


def _lines(name: str, value: JsonValue) -> list[str]:
    """Return one line, or one for each of several rows of a table."""
    if not (isinstance(value, list) and value and all(isinstance(item, dict) for item in value)):
        return [f"    {name}: {_printable(value)}"]
    rows = (
        ", ".join(f"{key} {_printable(cell)}" for key, cell in row.items()) for row in value if isinstance(row, dict)
    )
    return [f"    {name}:", *(f"      {row}" for row in rows)]


def _printable(value: JsonValue) -> str:
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return _UNUSUAL.sub(lambda c: c[0] if c[0].isprintable() else c[0].encode("unicode_escape").decode(), text)
