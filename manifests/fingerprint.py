"""The fingerprint of a partition: what its result depends on, in named parts that can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring as _text

from pydantic import BaseModel, ConfigDict

from manifests.canonical import JsonValue, canonical_digest, canonical_json, json_hasher


class Parts(BaseModel):
    """What a result depends on.

    Attributes:
        inputs: (step, partition, rows digest) of every upstream output that is read, sorted.
        recipe: The recipe keys the step declares in ``reads``, with their values.
        code: The step's ``VERSION``; 0 where a step's rows do not depend on code (a recording).
        models: Model name to revision.
        pins: Pinned input (lexicon, source) to content digest.
        profile: What decoded or computed numbers depend on: library versions, device kind, dtype.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: list[tuple[str, str, str]]
    recipe: dict[str, JsonValue]
    code: int
    models: dict[str, str] = {}
    pins: dict[str, str] = {}
    profile: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """32 hex digits over all parts."""
        return canonical_digest(self.model_dump(mode="json"))

    def row_fingerprint(self, *, recording: bool) -> str:
        """Return 32 hex digits over all parts but the inputs: equal for rows that would come out equal.

        Args:
            recording: Whether the rows are what the world answered: then neither settings nor code made them.
        """
        exclude = {"inputs", "recipe", "code"} if recording else {"inputs"}
        return canonical_digest(self.model_dump(mode="json", exclude=exclude))


class Frame:
    """The parts of a fingerprint but the inputs, which most partitions of a step share: their bytes are made once.

    Args:
        parts: The parts; their inputs do not matter.
    """

    __slots__ = ("_after", "_before", "_parts")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts.model_copy(update={"inputs": []})
        document = self._parts.model_dump(mode="json")
        before = canonical_json({key: value for key, value in document.items() if key < "inputs"})[:-1]
        self._before = json_hasher(before + b',"inputs":')
        self._after = b"," + canonical_json({key: value for key, value in document.items() if key > "inputs"})[1:]

    def fingerprint(self, inputs: Sequence[tuple[str, str, str]]) -> str:
        """Return what `Parts.fingerprint` gives of these parts with sorted ``inputs``."""
        hasher = self._before.copy()
        hasher.update(_inputs_json(inputs))
        hasher.update(self._after)
        return hasher.hexdigest()

    def parts(self, inputs: Sequence[tuple[str, str, str]]) -> Parts:
        """Return the parts with sorted ``inputs``."""
        return self._parts.model_copy(update={"inputs": list(inputs)})


def _inputs_json(inputs: Sequence[tuple[str, str, str]]) -> bytes:
    """Return the canonical JSON of inputs; put together here, because it is most of the work of planning."""
    rows = [f"[{_text(step)},{_text(partition)},{_text(digest)}]" for step, partition, digest in inputs]
    return f"[{','.join(rows)}]".encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two fingerprints."""

    part: str
    key: str
    was: JsonValue
    now: JsonValue


def changes(was: Parts, now: Parts) -> Iterator[Change]:
    """Yield what differs between two fingerprints of one partition, part by part."""
    before = {f"{step} {partition}": digest for step, partition, digest in was.inputs}
    after = {f"{step} {partition}": digest for step, partition, digest in now.inputs}
    yield from _mapping("inputs", dict(before), dict(after))
    yield from _mapping("recipe", was.recipe, now.recipe)
    if was.code != now.code:
        yield Change("code", "VERSION", was.code, now.code)
    yield from _mapping("models", dict(was.models), dict(now.models))
    yield from _mapping("pins", dict(was.pins), dict(now.pins))
    yield from _mapping("profile", dict(was.profile), dict(now.profile))


def _mapping(part: str, was: dict[str, JsonValue], now: dict[str, JsonValue]) -> Iterator[Change]:
    for key in sorted({*was, *now}):
        if was.get(key) != now.get(key):
            yield Change(part, key, was.get(key), now.get(key))
