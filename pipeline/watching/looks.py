"""Reads how a run goes from its folder, on whatever machine, and judges whether it still lives.

Clocks of two machines are not compared but for a first guess: a run is dead when, by the watcher's own clock, neither
its numbers nor the beat of its locks changed for several of its periods.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from pydantic import ValidationError

from manifests.store import Store
from pipeline.errors import UserError
from pipeline.locks import DEAD_BEATS
from pipeline.runs import run_folders
from pipeline.watching.sinks import NOW
from pipeline.watching.snapshot import RunNow

Life: TypeAlias = Literal["alive", "ended", "late", "seems dead", "dead"]

_OTHERS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found.

    Attributes:
        now: The run's newest document that could be read.
        life: late: no new numbers, but its locks beat; seems dead: no sign yet, and the last is old by the clock;
            dead: no sign for long.
        silent_s: Seconds since it last changed, as far as the watcher knows.
        others: Other runs of this workdir that go on.
        trouble: Why the newest document could not be read; empty if it could.
    """

    now: RunNow
    life: Life
    silent_s: float
    others: list[RunNow]
    trouble: str = ""


@dataclass(slots=True)
class _Pulse:
    """What was seen of one run."""

    now: RunNow
    changed_s: float
    age_s: float
    beats: frozenset[str] = frozenset()
    moved: bool = False
    over: bool = False
    is_late: bool = False

    @property
    def bound_s(self) -> float:
        return DEAD_BEATS * self.now.every_s


class Looks:
    """Looks at one run again and again, and at those beside it.

    Args:
        store: The workdir.
        run: A run's folder name; empty: the newest run, and, when it ended, one that follows it or goes on beside it.
        clock: Seconds, from any start.

    Raises:
        UserError: If there is no such run.
    """

    def __init__(self, store: Store, run: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._chosen = bool(run)
        self._clock = clock
        self._pulses: dict[str, _Pulse] = {}
        self._trouble: dict[str, str] = {}
        self._folder = f"runs/{run}" if run else self._newest()
        if run and not _NAME.fullmatch(run):
            raise UserError(f"--run {run!r}: give the name of a folder below {store.uri}/runs")
        if self._see(self._folder) is None:
            self._check_there(run)
            raise UserError(
                f"{store.uri}/{self._folder}/{NOW} cannot be read ({self._trouble[self._folder]}); "
                "`rs5m-build status` tells what is committed"
            )

    def look(self) -> Look:
        """Look once.

        Raises:
            UserError: If the run's documents are of another release's format.
        """
        others = self._beside()
        pulse = self._see(self._folder) or self._pulses[self._folder]
        life = self._judge(pulse)
        if life in ("ended", "dead") and not self._chosen and (following := self._following(others)):
            self._folder = following
            pulse = self._pulses[following]
            life = self._judge(pulse)
        rest = [other.now for folder, other in others.items() if folder != self._folder]
        return Look(pulse.now, life, self._silent_s(pulse), rest, self._trouble.get(self._folder, ""))

    def _check_there(self, run: str) -> None:
        """Raise UserError if the workdir has no folder of that run."""
        folders = run_folders(self._store)
        if self._folder in folders:
            return
        newest = f"the newest is {folders[0].removeprefix('runs/')}" if folders else "it has no run yet"
        raise UserError(f"no run {run} in {self._store.uri}; {newest}")

    def _newest(self) -> str:
        for folder in run_folders(self._store)[:_OTHERS]:
            if self._store.size(f"{folder}/{NOW}") is not None:
                return folder
        raise UserError(f"{self._store.uri} has no run to watch; `rs5m-build run` starts one")

    def _following(self, others: dict[str, _Pulse]) -> str:
        """Return the newest run that goes on, or one that began after this and is over too; empty if there is none."""
        newer = [folder for folder in self._pulses if folder > self._folder]
        return max(others, default=max(newer, default=""))

    def _beside(self) -> dict[str, _Pulse]:
        """Return the newest other runs that go on."""
        found = {}
        for folder in run_folders(self._store)[:_OTHERS]:
            known = self._pulses.get(folder)
            if folder == self._folder or (known and known.over):
                continue
            pulse = self._see(folder) or known
            if pulse:
                life = self._judge(pulse)
                pulse.over = life in ("ended", "dead")
                if life in ("alive", "late"):
                    found[folder] = pulse
        return found

    def _see(self, folder: str) -> _Pulse | None:
        """Read a run's newest document; None where it cannot be read."""
        try:
            now = RunNow.model_validate_json(self._store.read(f"{folder}/{NOW}"))
        except ValidationError as error:
            self._trouble[folder] = f"not a document of this release: {error.errors()[0]['msg']}"
            return None
        except Exception as error:  # noqa: BLE001  (stores raise errors of their own; the next look may work)
            self._trouble[folder] = f"{type(error).__name__}: {error}".splitlines()[0]
            return None
        self._trouble.pop(folder, None)
        pulse = self._pulses.get(folder)
        if pulse is None:
            pulse = self._pulses[folder] = _Pulse(now, self._clock(), _age_s(now.t))
        elif now.seq != pulse.now.seq:
            pulse.moved, pulse.is_late, pulse.changed_s = True, False, self._clock()
        pulse.now = now
        return pulse

    def _judge(self, pulse: _Pulse) -> Life:
        if pulse.now.state != "running":
            return "ended"
        silent_s = self._clock() - pulse.changed_s
        if silent_s > pulse.bound_s / 2 or (not pulse.moved and pulse.age_s > pulse.bound_s):
            beats = self._beats(pulse.now)
            if beats and pulse.beats and beats != pulse.beats:
                pulse.moved = pulse.is_late = True
                pulse.changed_s, silent_s = self._clock(), 0.0
            pulse.beats = beats
        if silent_s > pulse.bound_s:
            return "dead"
        if pulse.is_late:
            return "late"
        return "seems dead" if not pulse.moved and pulse.age_s > pulse.bound_s else "alive"

    def _silent_s(self, pulse: _Pulse) -> float:
        """Return how long nothing changed; before anything was seen to change, what the two clocks say."""
        silent_s = self._clock() - pulse.changed_s
        return silent_s if pulse.moved else silent_s + pulse.age_s

    def _beats(self, now: RunNow) -> frozenset[str]:
        """Return the locks that a run's driver holds, as they are written."""
        try:
            texts = [self._store.read(entry.path).decode() for entry in self._store.find("locks")]
            held = [(text, json.loads(text)) for text in texts]
            return frozenset(t for t, lock in held if (lock["host"], lock["pid"]) == (now.driver.host, now.driver.pid))
        except Exception:  # noqa: BLE001  (a lock that cannot be read is no sign of life)
            return frozenset()


def _age_s(stamp: str) -> float:
    """Return how old a document is if the two machines' clocks agree; 0 for one of the future."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
