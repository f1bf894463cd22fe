"""Image bodies in one fixed order, that of their digests, wherever they lie: model batches follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from manifests.store import Store
from stages.images import Place, read_images

_BLOCK_BYTES = 32 << 20


def bodies_by_digest(store: Store, places: Sequence[Place]) -> Iterator[tuple[str, bytes]]:
    """Yield (sha256, body) of every place, in order of sha256.

    Bodies that were carried over lie in other tars than those fetched now; where they lie must not change which
    images share a batch. Two blocks are held at most: one is read while the one before it is used.

    Args:
        store: The workdir.
        places: Where the bodies lie; each digest once.

    Raises:
        CorruptFileError: If a tar is gone or short, or a body is not what its digest says.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="bodies") as pool:
        ahead: Future[list[tuple[str, bytes]]] | None = None
        for block in _blocks(sorted(places, key=lambda place: place.sha256)):
            following = pool.submit(_read, store, block)
            if ahead:
                yield from ahead.result()
            ahead = following
        if ahead:
            yield from ahead.result()


def _read(store: Store, block: list[Place]) -> list[tuple[str, bytes]]:
    return sorted((block[index].sha256, body) for index, body in read_images(store, block))


def _blocks(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Cut the places into blocks of bounded size; a body larger than that is a block of its own."""
    block: list[Place] = []
    size = 0
    for place in places:
        if block and size + place.length > _BLOCK_BYTES:
            yield block
            block, size = [], 0
        block.append(place)
        size += place.length
    if block:
        yield block
