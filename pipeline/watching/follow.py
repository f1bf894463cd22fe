"""`status --watch`: shows a run until it ends, on a terminal in place, elsewhere block by block."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from manifests.store import Store
from pipeline.watching.looks import Look, Looks
from pipeline.watching.view import picture

_LOCAL_S = 2.0
_REMOTE_S = 15.0
_PIPE_WIDTH = 160


def watch_run(store: Store, run: str, every_s: float, *, as_json: bool, out: Console | None = None) -> int:
    """Show a run until it ends or Ctrl-C; whoever only watches has not failed when the run has.

    Args:
        store: The workdir.
        run: A run's folder name; empty: the newest.
        every_s: Seconds between two looks; 0: 2, or 15 where each is requests to an object store.
        as_json: One line of JSON a look, on stdout.
        out: Where to show; stdout otherwise.

    Returns:
        0 when the run ended, or the watcher was stopped; 3 when the run is dead.

    Raises:
        UserError: If there is no such run.
    """
    looks = Looks(store, run, time.monotonic)
    pause_s = every_s or (_LOCAL_S if store.local_path("") else _REMOTE_S)
    try:
        with _shown(out or _console(), as_json=as_json) as show:
            while True:
                look = looks.look()
                show(look)
                if look.life in ("ended", "dead"):
                    return 0 if look.life == "ended" else 3
                time.sleep(pause_s)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # whoever read has enough; what is still in the buffer must not raise once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def as_document(look: Look) -> dict[str, object]:
    """Return a look as JSON: ``life``, ``silent_s``, the run's document, and the names of those beside it."""
    return {
        "format": 1,
        "life": look.life,
        "silent_s": round(look.silent_s, 1),
        "trouble": look.trouble,
        "run": look.now.model_dump(mode="json", by_alias=True),
        "others": [{"run": other.run, "scope": other.scope, "host": other.driver.host} for other in look.others],
    }


@contextmanager
def _shown(console: Console, *, as_json: bool) -> Iterator[Callable[[Look], None]]:
    if as_json:
        yield _write_line
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
            yield lambda look: live.update(picture(look), refresh=True)
    else:
        yield lambda look: _write_block(console, look)


def _write_line(look: Look) -> None:
    sys.stdout.write(json.dumps(as_document(look)) + "\n")  # ASCII: whoever reads it, nothing steers a terminal
    sys.stdout.flush()


def _write_block(console: Console, look: Look) -> None:
    console.print(picture(look), soft_wrap=True)
    console.print()
    console.file.flush()


def _console() -> Console:
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(file=sys.stdout, width=_PIPE_WIDTH, highlight=False)
