"""Samples out of tars: read, decoded, transformed, tokenised. What cannot be used is told apart, never raised."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.pictures import PictureError, open_picture
from stages.train.members import Members

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from stages.train.transforms import Transform

UNDECODABLE, EMPTY_CAPTION = "undecodable", "empty_caption"
REASONS = (UNDECODABLE, EMPTY_CAPTION)

_OPEN_FILES = 256


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some samples, in order.

    Attributes:
        epoch: Whose order they are of.
        verdicts: For each sample asked for: empty if it is here, else why it is not.
        images: Those that are here, float32 [n, 3, S, S].
        tokens: Their captions, int64 [n, context].
    """

    epoch: int
    verdicts: tuple[str, ...]
    images: Tensor
    tokens: Tensor


class Samples:
    """Samples by number; any process may ask for any of them.

    Args:
        members: Where they lie.
        transform: Pictures to tensors.
        tokenizer: Texts to tokens [n, context], cut to the model's context.
    """

    def __init__(self, members: Members, transform: Transform, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self.members = members
        self._transform = transform
        self._tokenizer = tokenizer
        self._files: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, wanted: tuple[int, Sequence[int]]) -> Chunk:
        """Return the samples of ``(epoch, numbers)``."""
        import torch

        epoch, numbers = wanted
        images, texts, verdicts = list[torch.Tensor](), list[str](), list[str]()
        for number in numbers:
            row = self.members.rows[number]
            text = self._read(row["tar"], row["caption"], row["caption_bytes"]).decode("utf-8", "replace").strip()
            picture = _picture(self._read(row["tar"], row["picture"], row["picture_bytes"])) if text else None
            verdicts.append(EMPTY_CAPTION if not text else UNDECODABLE if picture is None else "")
            if picture is not None:
                images.append(self._transform(picture, epoch, int(row["key"])))
                texts.append(text)
        if not texts:
            return Chunk(epoch, tuple(verdicts), torch.empty(0), torch.empty(0, dtype=torch.int64))
        return Chunk(epoch, tuple(verdicts), torch.stack(images), self._tokenizer(texts))

    def captions(self) -> list[str]:
        """Return every caption, in order."""
        rows = self.members.rows
        return [self._read(r["tar"], r["caption"], r["caption_bytes"]).decode("utf-8", "replace").strip() for r in rows]

    def _read(self, tar: int, offset: int, length: int) -> bytes:
        file = self._files.pop(int(tar), None)
        if file is None:
            if len(self._files) >= _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            file = os.open(self.members.tars[tar], os.O_RDONLY | os.O_CLOEXEC)
        self._files[int(tar)] = file
        return os.pread(file, int(length), int(offset))

    def close(self) -> None:
        """Close the tars."""
        while self._files:
            os.close(self._files.popitem()[1])


def _picture(body: bytes) -> Image.Image | None:
    """Return the first frame in RGB, or None."""
    try:
        return open_picture(body)
    except PictureError:
        return None
