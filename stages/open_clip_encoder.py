"""Any open_clip model as an encoder: batched, in mixed precision on a GPU, with pictures decoded ahead of the model."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.encoder import Encoded, NotEncoded
from stages.open_clip_load import Towers, load_towers
from stages.pictures import PictureError, open_picture
from stages.step import OutOfMemoryError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OpenClipEncoder", "load_towers"]

Key = TypeVar("Key")
Decoded = NDArray[np.generic] | NotEncoded
Prepare = Callable[[Image.Image], NDArray[np.generic]]

_BATCHES_AHEAD = 3  # decoded pictures waiting for the model, in batches
_THREADS_ON_CPU = 2  # the model itself takes a core
_MAX_THREADS = 32
_MEMORY = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)


class OpenClipEncoder:
    """A loaded model and a batch size.

    Every forward pass has the full batch, the last one padded: numbers do not depend on how many pictures came along.
    """

    def __init__(self, towers: Towers, batch: int) -> None:
        self._towers = towers
        self._batch = batch
        self._prepare, self._finish = _split_preprocess(towers.preprocess)
        self._dimensions = int(self._forward_texts(["a"]).shape[1])

    @property
    def dimensions(self) -> int:
        """D, the length of an embedding."""
        return self._dimensions

    def pictures(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return unit vectors, float32 [N, D], in order.

        Raises:
            OutOfMemoryError: If the device's memory does not hold a batch.
        """
        rows = [np.empty((0, self._dimensions), dtype=np.float32)]
        with ThreadPoolExecutor(self._threads(), "prepare") as pool:
            for part in _batches(pool.map(lambda p: self._prepared(p.convert("RGB")), pictures), self._batch):
                rows.append(self._start(part)[0].cpu().numpy())
        return np.concatenate(rows)

    def bodies(self, bodies: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Encoded | NotEncoded]]:
        """Decode and encode image files in order; threads decode up to three batches ahead of the model.

        Raises:
            OutOfMemoryError: If the device's memory does not hold a batch.
        """
        with contextlib.closing(self._decoded_ahead(bodies)) as decoded:
            part = self._next_batch(decoded)
            running = self._start(_good(part))
            while part:
                # The next batch is on its way before this one's numbers are waited for: a GPU never idles.
                following = self._next_batch(decoded)
                started = self._start(_good(following))
                rows = iter(_landed(running))
                for key, pixels in part:
                    yield key, pixels if isinstance(pixels, NotEncoded) else next(rows)
                part, running = following, started

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, float32 [N, D], in order; long texts are cut to the model's context.

        Raises:
            OutOfMemoryError: If the device's memory does not hold a batch.
        """
        rows = [np.empty((0, self._dimensions), dtype=np.float32)]
        rows += [self._forward_texts(part) for part in _batches(texts, self._batch)]
        return np.concatenate(rows)

    def _next_batch(self, decoded: Iterator[tuple[Key, Decoded]]) -> list[tuple[Key, Decoded]]:
        """Take pictures until a batch of them is full; those that cannot be decoded come along."""
        part: list[tuple[Key, Decoded]] = []
        good = 0
        while good < self._batch and len(part) < 2 * self._batch and (found := next(decoded, None)):
            part.append(found)
            good += not isinstance(found[1], NotEncoded)
        return part

    def _decoded_ahead(self, bodies: Iterable[tuple[Key, bytes]]) -> Generator[tuple[Key, Decoded], None, None]:
        coming = iter(bodies)
        ahead = _BATCHES_AHEAD * self._batch
        waiting: collections.deque[tuple[Key, Future[Decoded]]] = collections.deque()
        with ThreadPoolExecutor(self._threads(), "decode") as pool:
            try:
                while True:
                    for key, body in itertools.islice(coming, ahead - len(waiting)):
                        waiting.append((key, pool.submit(self._decode, body)))
                    if not waiting:
                        return
                    key, future = waiting.popleft()
                    yield key, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()

    def _decode(self, body: bytes) -> Decoded:
        try:
            return self._prepared(open_picture(body))
        except (PictureError, ValueError, ZeroDivisionError) as error:
            return NotEncoded(str(error) or type(error).__name__)

    def _prepared(self, picture: Image.Image) -> NDArray[np.generic]:
        with self._memory_told_apart():
            return self._prepare(picture)

    def _start(self, pixels: Sequence[NDArray[np.generic]]) -> tuple[Tensor, Tensor]:
        """Start a forward pass of at most a batch of prepared pictures: unit vectors [N, D], trunk features [N, F]."""
        import torch

        if not pixels:
            return torch.empty(0, self._dimensions), torch.empty(0, 0)
        with self._running():
            kind = torch.from_numpy(np.empty(0, dtype=pixels[0].dtype)).dtype
            padded = torch.zeros((self._batch, *pixels[0].shape), dtype=kind, pin_memory=self._towers.device == "cuda")
            np.stack(pixels, out=padded.numpy()[: len(pixels)])
            batch = self._finish(padded.to(self._towers.device, non_blocking=True))
            trunk, features = _both(self._towers.model, batch)
            return _unit(features)[: len(pixels)], trunk.float()[: len(pixels)]

    def _forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        padded = [*texts, *[""] * (self._batch - len(texts))]
        with self._running():
            tokens = self._towers.tokenize(padded).to(self._towers.device)
            features = _unit(self._towers.model.encode_text(tokens))  # type: ignore[operator]
            return features[: len(texts)].cpu().numpy()

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Inference on the device: mixed precision there, no TF32 in float32, and out of memory told apart."""
        import torch

        towers = self._towers
        on_gpu = towers.device == "cuda"
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        mixed = torch.autocast(
            "cuda", kinds.get(towers.precision, torch.bfloat16), enabled=on_gpu and towers.precision != "fp32"
        )
        exact: Any = contextlib.nullcontext()
        if on_gpu:
            exact = torch.backends.cudnn.flags(
                benchmark=False, deterministic=True, allow_tf32=towers.precision != "fp32"
            )
        with self._memory_told_apart(), torch.inference_mode(), mixed, exact:
            yield

    @contextlib.contextmanager
    def _memory_told_apart(self) -> Iterator[None]:
        """Raise OutOfMemoryError for memory that runs out on the device or beside it: no picture's fault."""
        import torch

        try:
            yield
        except (MemoryError, RuntimeError) as error:
            # Besides the classes for it: what drivers, pinned memory, cuBLAS and torch's allocators were seen to say.
            if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not _MEMORY.search(str(error)):
                raise
            torch.cuda.empty_cache()
            raise OutOfMemoryError(f"a batch of {self._batch} does not fit into the device's memory") from error

    def _threads(self) -> int:
        if self._towers.device == "cpu":
            return _THREADS_ON_CPU
        return min(_MAX_THREADS, len(os.sched_getaffinity(0)))


def _both(model: Any, batch: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - any open_clip model
    """Return the image tower's features before its projection, and after it, from one forward pass."""
    visual = model.visual
    if not (hasattr(visual, "trunk") and hasattr(visual, "head")):
        features = model.encode_image(batch)
        return features, features
    trunk = visual.trunk(batch)
    features = visual.head(trunk)
    if trunk.ndim == 4:  # a head that pools by attention takes a map
        trunk = trunk.mean(dim=(2, 3))
    elif trunk.ndim == 3:
        trunk = trunk.mean(dim=1)
    return trunk, features


def _unit(features: Tensor) -> Tensor:
    from torch.nn.functional import normalize

    return normalize(features.float(), dim=-1)


def _good(part: Iterable[tuple[Key, Decoded]]) -> list[NDArray[np.generic]]:
    return [pixels for _, pixels in part if not isinstance(pixels, NotEncoded)]


def _landed(running: tuple[Tensor, Tensor]) -> Iterator[Encoded]:
    """Wait for a forward pass; return its rows."""
    embeddings, trunks = (tensor.cpu().numpy() for tensor in running)
    return (Encoded(*row) for row in zip(embeddings, trunks, strict=True))


def _split_preprocess(preprocess: Any) -> tuple[Prepare, Callable[[Tensor], Tensor]]:  # noqa: ANN401 - torchvision's
    """Split a model's preprocessing: what is done to each picture in a thread, and to the batch on the device.

    Where it ends with "to tensor, normalise" the threads hand over bytes, a quarter of the size, and the same two
    operations are done in the same order on the whole batch.
    """
    from torchvision.transforms import Normalize

    steps = list(getattr(preprocess, "transforms", ()))
    known = (
        len(steps) > 2
        and isinstance(steps[-1], Normalize)
        and type(steps[-2]).__name__ in ("ToTensor", "MaybeToTensor")
    )
    if not known:
        return (lambda picture: preprocess(picture).numpy()), (lambda batch: batch)

    def prepare(picture: Image.Image) -> NDArray[np.generic]:
        for step in steps[:-2]:
            picture = step(picture)
        return np.asarray(picture)

    def finish(batch: Tensor) -> Tensor:
        # Pictures are stored channel by channel last: the view is in the layout that convolutions are fastest in.
        normalised: Tensor = steps[-1](batch.permute(0, 3, 1, 2).float().div(255))
        return normalised

    return prepare, finish


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    coming = iter(items)
    while part := list(itertools.islice(coming, size)):
        yield part
