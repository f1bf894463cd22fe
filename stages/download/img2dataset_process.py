"""img2dataset in a process of its own, watched from ours.

Nothing inside a process ends a thread that reads a body without end, and a process with such a thread in the library's
pool does not even exit. So the library gets a process for each shard, and what hangs ends with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa

from stages.download import img2dataset_child as child
from stages.download.answers import ROBOT, Limits, Network
from stages.download.consent import REFUSING
from stages.download.img2dataset_words import HANGS, NO_ROW
from stages.step import ModelMissingError

SHARD_URLS = 10_000
"""Urls for one process: what the library itself puts into a shard. Importing it takes seconds each time, and its
threads finish a shard before the next begins."""

_MODULE = "stages.download.img2dataset_child"
# albumentations asks the network for a newer release when it is imported; wandb is imported but not used.
_ENVIRONMENT = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "WANDB_ERROR_REPORTING": "false"}
_LOG_CHARS = 300


class Img2datasetError(ModelMissingError):
    """The engine cannot be used as the recipe says: one line that says which setting, and what to do."""


class Row(NamedTuple):
    """What the library says of one url: a body, or what went wrong."""

    url: str
    body: bytes | None
    error: str | None


def rows(spellings: Mapping[str, str], limits: Limits, network: Network, scratch: Path, ends_s: float) -> Iterator[Row]:
    """Ask for urls in their order and give what comes.

    When no row has come for as long as every attempt at one url may take, all threads of the library hang: those urls
    are given up, and a fresh process asks for the rest.

    Args:
        spellings: What to ask for, by url.
        limits: What is taken.
        network: How the web is asked.
        scratch: A local folder.
        ends_s: When to stop, by the monotonic clock.

    Yields:
        A row for each url, each once; fewer when the time is up.

    Raises:
        Img2datasetError: The library does not import.
        ChildProcessError: Its process ended by itself before its shard was done.
    """
    left = list(spellings)
    while left and time.monotonic() < ends_s:
        shard = left[:SHARD_URLS]
        answered: set[str] = set()
        with tempfile.TemporaryDirectory(prefix="img2dataset-", dir=scratch) as folder:
            job = _job(Path(folder), [spellings[url] for url in shard], limits, network)
            with _Process(job) as process:
                for row in _watched(process, shard, network, ends_s):
                    answered.add(row.url)
                    yield row
        left = [url for url in shard if url not in answered] + left[SHARD_URLS:]


def _job(folder: Path, urls: Sequence[str], limits: Limits, network: Network) -> Path:
    """Write down what the child shall do, and return the file."""
    table = pa.table({"url": urls, "ordinal": pa.array(range(len(urls)), pa.int64())})
    shard = folder / "shard.arrow"
    with pa.OSFile(str(shard), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    options = {
        "shard": str(shard),
        "folder": str(folder),
        "thread_count": network.connections,
        "timeout": min(network.read_s, network.total_s),
        "number_sample_per_shard": SHARD_URLS,
        "retries": network.attempts - 1,
        "user_agent_token": ROBOT,
        "disallowed_header_directives": sorted(REFUSING) if limits.consent.headers else None,
    }
    job = folder / "job.json"
    job.write_text(json.dumps(options), "utf-8")
    return job


def _watched(process: _Process, shard: Sequence[str], network: Network, ends_s: float) -> Iterator[Row]:
    """Give the rows of a shard, and give up what hangs."""
    patience_s = network.total_s * network.attempts
    unanswered = dict.fromkeys(range(len(shard)))
    quiet_s = ends_s  # importing the library is nobody's delay
    while (now_s := time.monotonic()) < ends_s:
        if now_s >= quiet_s:
            # The library's threads take urls in order, so these are the ones they hold.
            for ordinal in list(unanswered)[: network.connections]:
                yield Row(shard[ordinal], None, HANGS)
            return
        frame = process.receive(min(quiet_s, ends_s) - now_s)
        if frame is None:
            continue
        ordinal, body, words = frame
        if ordinal == child.END:
            for lost in unanswered:
                yield Row(shard[lost], None, NO_ROW)
            return
        if ordinal == child.NO_IMPORT:
            raise Img2datasetError(f"download.engine is img2dataset, which does not import: {words}")
        if ordinal != child.READY:
            del unanswered[ordinal]
            yield Row(shard[ordinal], body, words)
        quiet_s = time.monotonic() + patience_s


class _Process:
    """One process of the library and the pipe it writes to. Leaving the context ends it."""

    def __init__(self, job: Path) -> None:
        self._job = job
        self._log = job.with_name("log")

    def __enter__(self) -> Self:
        reading, writing = os.pipe()
        self._pipe: Connection[Any, Any] = Connection(reading, writable=False)
        environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-W", "ignore", "-m", _MODULE, str(self._job), str(writing)]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(writing,), env=environment
                )
        finally:
            os.close(writing)
        return self

    def __exit__(self, _kind: object, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.communicate()

    def receive(self, wait_s: float) -> tuple[int, bytes | None, str | None] | None:
        """Return the next frame: its ordinal, and a body or words; None if there was none in time.

        Raises:
            ChildProcessError: The process ended before it said so.
        """
        try:
            if not self._pipe.poll(max(0.0, wait_s)):
                return None
            frame = self._pipe.recv_bytes()
        except EOFError:
            code = self._process.wait()
            words = self._log.read_text("utf-8", "replace").strip()[-_LOG_CHARS:]
            msg = f"img2dataset's process ended by itself with {code}: {words}; download.engine native bounds memory"
            raise ChildProcessError(msg) from None
        ordinal, is_body = child.FRAME.unpack_from(frame)
        payload = frame[child.FRAME.size :]
        return (ordinal, payload, None) if is_body else (ordinal, None, payload.decode("utf-8", "replace"))
