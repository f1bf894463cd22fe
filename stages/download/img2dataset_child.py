"""What runs in img2dataset's process: one shard through the library's `Downloader`, each row sent back as it comes.

The library writes through a class that its caller names. Ours is a pipe, so no body touches the disk on its way, a
shard that is ended early has still given what it got, and a reader that falls behind holds the library back.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FRAME = struct.Struct(">q?")
"""Before each row's payload: the ordinal of its url, or one of the words below, and whether the payload is a body."""

READY, END, NO_IMPORT = -1, -2, -3
"""The library is imported and begins; it is done; it does not import, and the payload says why."""


class PipeWriter:
    """Stands where the library's writers of tars and Parquet stand."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe

    def write(self, body: bytes | None, key: str, caption: str | None, meta: Mapping[str, Any]) -> None:
        """Send one row; waits while the reader is behind, and ends this process when there is none left."""
        del key, caption
        payload = str(meta["error_message"]).encode("utf-8", "replace") if body is None else body
        try:
            self._pipe.send_bytes(FRAME.pack(meta["ordinal"], body is not None) + payload)
        except OSError:  # the library would take this for a failure of the row, and go on
            os._exit(1)

    def close(self) -> None:
        """Do what the library asks of a writer at the end: nothing is open."""


def main(job: str, descriptor: int) -> None:
    """Work through one job.

    Args:
        job: A JSON file: `shard`, the Arrow file of columns url and ordinal; `folder`; the rest goes to `Downloader`.
        descriptor: The pipe to write to.
    """
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    pipe = Connection(descriptor, readable=False)
    options = json.loads(Path(job).read_text("utf-8"))
    try:
        downloader_class = importlib.import_module("img2dataset.downloader").Downloader
        resizer_class = importlib.import_module("img2dataset.resizer").Resizer
    except ImportError as error:
        pipe.send_bytes(FRAME.pack(NO_IMPORT, False) + str(error).encode("utf-8", "replace"))
        return
    writer = PipeWriter(pipe)
    downloader = downloader_class(
        sample_writer_class=lambda *_settings: writer,
        resizer=resizer_class(256, "no", False, disable_all_reencoding=True),  # the size is not used
        save_caption=False,
        extract_exif=False,
        output_folder=options.pop("folder"),
        column_list=["url", "ordinal"],
        oom_shard_count=1,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",  # a name only: the bytes stay
        **{name: value for name, value in options.items() if name != "shard"},
    )
    pipe.send_bytes(FRAME.pack(READY, False))
    downloader.download_shard((0, options["shard"]))
    pipe.send_bytes(FRAME.pack(END, False))


def _end_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
