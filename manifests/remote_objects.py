"""Objects in an object store over fsspec (S3, GCS, OSS, memory): a PUT is atomic by itself, creation is exclusive.

Everything goes through `manifests.patience`. Bytes are counted: a read is compared with the size the store states, an
upload with the size, or the MD5, that it says it keeps. Reads and sizes ask for the object itself, never a listing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from fsspec.asyn import sync

from manifests.objects import AlreadyThereError, Entry, StoreRefusedError
from manifests.patience import ShortReadError, code_of, patiently

BLOCK_BYTES = 8 << 20
_RANGES_IN_FLIGHT = 8
_T = TypeVar("_T")


class RemoteObjects:
    """Objects below a prefix.

    Args:
        fs: Their fsspec file system.
        root: Bucket and prefix.
        uri: The workdir's URI, for errors.
        patience_s: How long one operation is tried.
    """

    def __init__(self, fs: Any, root: str, uri: str, patience_s: float) -> None:  # noqa: ANN401  (fsspec is untyped)
        self._fs = fs
        self._root = root
        self._uri = uri
        self._patience_s = patience_s
        self._is_s3 = hasattr(fs, "call_s3")

    def read(self, path: str) -> bytes:
        """Return a whole object."""
        first, size = self._part(path, 0, BLOCK_BYTES)
        if size <= len(first):
            return first
        starts = range(len(first), size, BLOCK_BYTES)
        with ThreadPoolExecutor(_RANGES_IN_FLIGHT) as pool:
            rest = pool.map(lambda start: self.read_range(path, start, BLOCK_BYTES), starts)
            return b"".join([first, *rest])

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return a part of an object."""
        return self._part(path, start, length)[0]

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open an object: a small one is read at once, a large one in ranges."""
        first, size = self._part(path, 0, BLOCK_BYTES)
        if size <= len(first):
            yield io.BytesIO(first)
            return
        with io.BufferedReader(_Ranges(self, path, size), BLOCK_BYTES) as file:
            yield cast("BinaryIO", file)

    def size(self, path: str) -> int | None:
        """Return an object's size by a request for it alone."""
        try:
            return self._patiently(f"HEAD {path}", lambda: self._stated_size(path))
        except FileNotFoundError:
            return None

    def scan(self, folder: str) -> Iterator[Entry]:
        """Yield all objects below a folder."""
        try:
            yield from self._s3_listed(folder) if self._is_s3 else self._any_listed(folder)
        except FileNotFoundError:
            return

    def stamp_of(self, path: str, data: bytes) -> str:
        """Return what S3 makes the ETag of one PUT of."""
        del path
        return _md5(data)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly below a folder."""
        try:
            found = self._patiently(f"LIST {folder}", lambda: self._fs.ls(self._full(folder), detail=True))
        except FileNotFoundError:
            return []
        names = [str(info["name"]).rstrip("/") for info in found if info["type"] == "directory"]
        return [name.rsplit("/", 1)[-1] for name in names]

    def create(self, path: str, data: bytes) -> None:
        """Write a new object."""
        try:
            self._patiently(f"exclusive PUT {path}", lambda: self._create(path, data))
        except FileExistsError:
            # The answer to an earlier attempt may have been lost: then this is what it made.
            with contextlib.suppress(FileNotFoundError):
                if self.read(path) == data:
                    return
            raise AlreadyThereError(path) from None

    def replace(self, path: str, data: bytes) -> None:
        """Write an object whole."""
        self._patiently(f"PUT {path}", lambda: self._put_bytes(path, data))

    def put(self, local: Path, path: str, *, copied: bool) -> None:
        """Upload a file; s3fs sends a large one in parts, which become an object all together or are thrown away."""
        del copied
        if local.stat().st_size <= BLOCK_BYTES:
            self.replace(path, local.read_bytes())
        else:
            self._patiently(f"PUT {path}", lambda: self._put_file(path, local))

    def remove(self, path: str) -> None:
        """Remove an object."""
        with contextlib.suppress(FileNotFoundError):
            self._patiently(f"DELETE {path}", lambda: self._fs.rm_file(self._full(path)))

    def rename(self, path: str, new: str) -> None:
        """Copy an object and remove it under its old name: two requests, each of which may be sent again."""
        self._patiently(f"COPY {path}", lambda: self._fs.cp_file(self._full(path), self._full(new)))
        self.remove(path)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _patiently(self, what: str, call: Callable[[], _T]) -> _T:
        return patiently(call, self._uri, what, self._patience_s)

    def _named(self, path: str) -> dict[str, str]:
        bucket, key, _ = self._fs.split_path(self._full(path))
        return {"Bucket": bucket, "Key": key}

    def _part(self, path: str, start: int, length: int) -> tuple[bytes, int]:
        """Return bytes of an object and the size of all of it."""
        return self._patiently(
            f"GET {path} ({length} bytes from {start})",
            lambda: self._s3_part(path, start, length) if self._is_s3 else self._any_part(path, start, length),
        )

    def _s3_part(self, path: str, start: int, length: int) -> tuple[bytes, int]:
        """Ask for a range: the answer states the object's size, so no HEAD is needed."""
        if length <= 0:
            return b"", self._stated_size(path)
        try:
            answer = self._fs.call_s3("get_object", **self._named(path), Range=f"bytes={start}-{start + length - 1}")
        except OSError as error:
            if code_of(error) != "InvalidRange":
                raise
            return b"", start  # the object ends before it
        try:
            body = cast("bytes", sync(self._fs.loop, answer["Body"].read))
        finally:
            answer["Body"].close()
        if "ContentRange" in answer:
            size = int(answer["ContentRange"].rpartition("/")[2])
            return _whole(body, min(length, size - start), path), size
        _whole(body, int(answer["ContentLength"]), path)  # a server that knows no ranges sends everything
        return body[start : start + length], len(body)

    def _any_part(self, path: str, start: int, length: int) -> tuple[bytes, int]:
        size = self._stated_size(path)
        wanted = max(0, min(length, size - start))
        if not wanted:
            return b"", size
        return _whole(self._fs.cat_file(self._full(path), start=start, end=start + wanted), wanted, path), size

    def _stated_size(self, path: str) -> int:
        if self._is_s3:
            return int(self._fs.call_s3("head_object", **self._named(path))["ContentLength"])
        return int(self._fs.info(self._full(path), refresh=True)["size"])

    def _any_listed(self, folder: str) -> Iterator[Entry]:
        def listed() -> dict[str, dict[str, Any]]:
            self._fs.invalidate_cache(self._full(folder))
            return cast("dict[str, dict[str, Any]]", self._fs.find(self._full(folder), detail=True))

        for name, info in self._patiently(f"LIST {folder}", listed).items():
            stamp = str(info.get("ETag") or "").strip('"')
            yield Entry(str(name)[len(self._root) + 1 :], int(info["size"]), stamp)

    def _s3_listed(self, folder: str) -> Iterator[Entry]:
        """List page by page: a page that fails is asked for again, not the whole list."""
        bucket, prefix, _ = self._fs.split_path(f"{self._full(folder)}/")
        below = len(self._root) - len(bucket)
        asked = {"Bucket": bucket, "Prefix": prefix}
        while True:
            page = self._patiently(f"LIST {folder}", lambda: self._fs.call_s3("list_objects_v2", **asked))
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):  # a folder that a web console made
                    yield Entry(item["Key"][below:], int(item["Size"]), str(item.get("ETag") or "").strip('"'))
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _create(self, path: str, data: bytes) -> None:
        try:
            self._fs.pipe_file(self._full(path), data, mode="create")
        except (NotImplementedError, TypeError, ValueError) as error:
            raise StoreRefusedError(self._no_exclusive(path)) from error
        except OSError as error:
            if code_of(error) == "PreconditionFailed":
                raise FileExistsError(path) from error
            if code_of(error) == "NotImplemented":
                raise StoreRefusedError(self._no_exclusive(path)) from error
            raise

    def _no_exclusive(self, path: str) -> str:
        return (
            f"{self._uri}: this store has no exclusive create (tried on {path}), on which locks and commits rest: it "
            "may hold sources, but be no workdir; use S3 or one that knows If-None-Match, GCS, or a shared file system"
        )

    def _put_bytes(self, path: str, data: bytes) -> None:
        if not self._is_s3 or len(data) > BLOCK_BYTES:
            self._fs.pipe_file(self._full(path), data)
            self._check_size(path, len(data))
            return
        answer = self._fs.call_s3("put_object", **self._named(path), Body=data)
        if answer.get("ETag", "").strip('"') != _md5(data):  # not every store, nor every encryption, makes it so
            self._check_size(path, len(data))

    def _put_file(self, path: str, local: Path) -> None:
        self._fs.put_file(str(local), self._full(path))
        self._check_size(path, local.stat().st_size)

    def _check_size(self, path: str, wanted: int) -> None:
        try:
            size = self._stated_size(path)
        except FileNotFoundError as error:
            raise ShortReadError(f"{path} is not there though it was sent") from error
        if size != wanted:
            raise ShortReadError(f"{path} is kept with {size} bytes, {wanted} were sent")


class _Ranges(io.RawIOBase):
    """A large object read in ranges."""

    def __init__(self, objects: RemoteObjects, path: str, size: int) -> None:
        super().__init__()
        self._objects = objects
        self._path = path
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (any writable buffer)
        wanted = max(0, min(len(buffer), self._size - self._place))
        data = self._objects.read_range(self._path, self._place, wanted) if wanted else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _whole(body: bytes, wanted: int, path: str) -> bytes:
    if len(body) != wanted:
        raise ShortReadError(f"{path}: {len(body)} of {wanted} bytes came")
    return body
