"""Verifies a build: every stored byte against what was recorded, then every law against the rows themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field

from manifests.canonical import JsonValue
from manifests.commits import CommitStore
from manifests.manifest import FORMAT
from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.books import Law, chain_holds, read_books
from pipeline.errors import UserError
from pipeline.funnel import funnel, funnel_closes
from pipeline.locks import Lock
from pipeline.metadata import metadata_slices
from pipeline.planner import Planner
from pipeline.repair import set_aside
from pipeline.verify_files import Checked, check_files, check_images, expectations, unreadable_commits
from pipeline.verify_release import check_release
from pipeline.verify_rows import check_rows

LAWS = (
    "ledger_closes",
    "chain",
    "funnel_closes",
    "rows",
    "release_tars",
    "release_sizes",
    "release_checksums",
    "survivors_released",
)
"""Names of the laws that are checked, in order."""

_TICK_S = 5.0


@dataclass(slots=True)
class Verification:
    """What a verification found.

    Attributes:
        files: Files read.
        bytes: Their bytes.
        corrupt: Path to what is wrong with it; each was set aside.
        undone: Commits that were removed because they pointed at one.
        laws: Whether the laws hold; not checked (None) while files are corrupted.
    """

    files: int = 0
    bytes: int = 0
    corrupt: dict[str, str] = field(default_factory=dict)
    undone: list[str] = field(default_factory=list)
    laws: list[Law] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is corrupted and no law is broken."""
        return not self.corrupt and not any(law.ok is False for law in self.laws)


def verify(recipe: Recipe, store: Store, say: Callable[[str], None]) -> Verification:
    """Verify a workdir under the run's lock, so that nothing changes meanwhile.

    Args:
        recipe: The current recipe: laws are checked on what is committed under it, files of all commits.
        store: The workdir.
        say: Told of progress every few seconds.

    Raises:
        LockHeldError: If a run works here.
        UserError: If the recipe's world is not built.
        RecipeError: If metadata that the recipe names is not there.
    """
    if recipe.world and store.size("world/world.json") is None:
        raise UserError(f"{store.uri}: its world is not built yet; run `rs5m-build run` first")
    with Lock(store, "run", recipe.run.lock_beat_s, say):
        commits, progress = CommitStore(store), _Progress(say)
        found = Verification()
        for path, what in unreadable_commits(commits).items():
            store.rename(path, f"{path}.corrupt")
            found.corrupt[path] = what
        expected = expectations(commits)
        checked = check_files(store, expected, progress.tick)
        found.files, found.bytes = len(checked.digests), checked.bytes
        found.corrupt |= checked.corrupt
        found.corrupt |= check_images(store, expected, checked, progress.tick)
        if found.corrupt:
            found.undone = _set_aside(store, commits, found.corrupt)
            found.laws = [Law(name, None, "not checked: files are corrupted") for name in LAWS]
        else:
            planner = Planner(recipe, store, commits, metadata_slices(recipe, store, needed=()), reading=True)
            found.laws = _laws(recipe, store, planner, checked)
    return found


def _set_aside(store: Store, commits: CommitStore, corrupt: Collection[str]) -> list[str]:
    manifests = [path for path in corrupt if path.startswith("commits/")]
    files = [path for path in corrupt if not path.startswith("commits/")]
    repaired = set_aside(store, commits, files, believed=True)
    return sorted({*manifests, *(path for removed in repaired.removed.values() for path in removed)})


def _laws(recipe: Recipe, store: Store, planner: Planner, checked: Checked) -> list[Law]:
    books = read_books(planner)
    sources = {source for by_source in books.values() for source in by_source}
    laws = [
        *check_rows(store, planner, books),
        chain_holds(planner, books, recipe.run.skip),
        funnel_closes(books, funnel(books, sorted(sources))),
        *check_release(store, planner, checked.digests),
    ]
    return sorted(laws, key=lambda law: LAWS.index(law.law))


class _Progress:
    """Says every few seconds how far the reading got."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said_s = time.monotonic()

    def tick(self, text: str) -> None:
        """Take in how far it got."""
        if time.monotonic() - self._said_s >= _TICK_S:
            self._said_s = time.monotonic()
            self._say(text)


def verification_document(found: Verification) -> dict[str, JsonValue]:
    """Return what was found as JSON."""
    return {
        "format": FORMAT,
        "ok": found.ok,
        "files": found.files,
        "bytes": found.bytes,
        "corrupt": [{"path": path, "detail": what} for path, what in sorted(found.corrupt.items())],
        "undone": list[JsonValue](found.undone),
        "laws": [asdict(law) for law in found.laws],
    }


def verification_lines(found: Verification) -> list[str]:
    """Return what was found, for people."""
    lines = [f"{found.files} files, {found.bytes:,} bytes read"]
    lines += [f"CORRUPTED {path}: {what}; set aside as {path}.corrupt" for path, what in sorted(found.corrupt.items())]
    if found.corrupt:
        lines.append(f"{len(found.undone)} commits undone; `rs5m-build run` makes the files again, then verify again")
        return lines
    for law in found.laws:
        verdict = "holds" if law.ok else f"BROKEN: {law.detail}" if law.ok is False else law.detail
        lines.append(f"law {law.law}: {verdict}")
    return lines
