"""`rs5m-build detector fit`: trains a remote-sensing detector on folders of pictures, and says how well it does."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from manifests.canonical import JsonValue
from manifests.manifest import FORMAT
from pipeline.errors import UserError
from pipeline.progress import stderr_say
from stages.detector import load_detector, save_detector
from stages.encoder import NotEncoded, Placement, load_encoder, model_digest, resolve_device
from stages.outlier.fit import PARTS, Part, evaluate, fit_head, split

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Files with another ending are passed over."""

_SHOWN = 5
_PROGRESS_S = 5.0
_PIPE_WIDTH = 120


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What `detector fit` is asked to do.

    Attributes:
        positive: Folders of remote-sensing pictures.
        negative: Folders of other pictures.
        encoder: The encoder whose image tower the head stands on, as a recipe names it.
        out: The head's file, ``.safetensors``; the evaluation is written beside it as ``.json``.
        seed: Of the split.
        device: auto, cpu or cuda.
        batch: Images at a time.
    """

    positive: Sequence[str]
    negative: Sequence[str]
    encoder: str = "mini"
    out: str = "detector.safetensors"
    seed: int = 2023
    device: str = "auto"
    batch: int = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Pictures:
    """What became of the files.

    Attributes:
        features: float32 [F] by sha256.
        labels: True: remote sensing, by sha256.
        unreadable: What was wrong, by file.
        copies: Files that repeat another's bytes.
    """

    features: Mapping[str, NDArray[np.float32]]
    labels: Mapping[str, bool]
    unreadable: Mapping[str, str]
    copies: int

    def of(self, kind: bool) -> list[str]:
        """Return the digests of one kind that have features."""
        return [digest for digest, label in self.labels.items() if label is kind and digest in self.features]


def fit_detector(options: FitOptions, *, as_json: bool) -> int:
    """Fit, evaluate, write and report a detector; returns the exit code.

    Raises:
        UserError: If there are too few pictures, or they contradict each other, or the file cannot be written.
        ModelMissingError: If the encoder is not at hand.
    """
    out = Path(options.out)
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise UserError(f"--out {options.out}: name a file ending in .safetensors in a folder that exists")
    pictures = _encoded(options)
    parts = {kind: _split(pictures.of(kind), kind, options.seed) for kind in (True, False)}
    train, val, test = (_stacked(pictures, parts, part) for part in PARTS)
    head = fit_head(train, val)
    document = _described(options, pictures, parts)
    save_detector(out, head.weight, head.bias, _metadata(document))
    judged = evaluate(load_detector(str(out), "--out").probability(test[0]).astype(np.float64), test[1])
    document |= {
        "chosen_c": head.strength,
        "validation_loss": {str(strength): loss for strength, loss in head.losses.items()},
        "test": judged.document(),
    }
    out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    stderr_say(f"wrote {out} and {out.with_suffix('.json')}; use it with --set 'outlier.detector=\"{out}\"'")
    if as_json:
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        _print(document)
    return 0


def _encoded(options: FitOptions) -> _Pictures:
    """Read every picture once and return the features of the distinct ones."""
    files = {True: _files(options.positive, "--positive"), False: _files(options.negative, "--negative")}
    labels: dict[str, bool] = {}
    first: dict[str, Path] = {}
    for kind, paths in files.items():
        for path in paths:
            digest = hashlib.sha256(_bytes(path)).hexdigest()
            if labels.setdefault(digest, kind) is not kind:
                raise UserError(f"{first[digest]} and {path} hold the same bytes, once positive and once negative")
            first.setdefault(digest, path)
    placement = Placement(resolve_device(options.device), "fp32", options.batch)
    encoder = load_encoder(options.encoder, placement, "--encoder")
    ordered = sorted(first)
    found = encoder.bodies((digest, _bytes(first[digest])) for digest in ordered)
    features: dict[str, NDArray[np.float32]] = {}
    unreadable: dict[str, str] = {}
    for digest, encoded in _counted(found, len(ordered)):
        if isinstance(encoded, NotEncoded):
            unreadable[str(first[digest])] = encoded.detail
        elif not np.isfinite(encoded.trunk).all():
            unreadable[str(first[digest])] = "the encoder gave no number"
        else:
            features[digest] = encoded.trunk
    for name, detail in list(unreadable.items())[:_SHOWN]:
        stderr_say(f"left out {name}: {detail}")
    if len(unreadable) > _SHOWN:
        stderr_say(f"left out {len(unreadable) - _SHOWN} more")
    return _Pictures(features, labels, unreadable, sum(map(len, files.values())) - len(first))


def _files(folders: Sequence[str], option: str) -> list[Path]:
    """Return the pictures below folders, sorted; hidden files and folders are passed over."""
    found: list[Path] = []
    for name in folders:
        folder = Path(name)
        if not folder.is_dir():
            raise UserError(f"{option} {name}: no such folder")
        below = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        found += [path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not found:
        raise UserError(f"{option} {', '.join(folders)}: no file ends in {' '.join(SUFFIXES)}")
    return sorted(set(found))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _counted(found: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass results on, saying every few seconds how far it is."""
    start = said = time.monotonic()
    for number, item in enumerate(found, 1):
        now = time.monotonic()
        if now - said >= _PROGRESS_S or number == total:
            stderr_say(f"encoded {number:,} of {total:,} images ({number / max(now - start, 1e-9):,.0f}/s)")
            said = now
        yield item


def _split(digests: Sequence[str], kind: bool, seed: int) -> dict[str, Part]:
    try:
        return split(digests, seed)
    except ValueError as error:
        raise UserError(f"{'--positive' if kind else '--negative'}: {error} that the encoder can read") from error


def _stacked(
    pictures: _Pictures, parts: Mapping[bool, Mapping[str, Part]], part: Part
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    chosen = sorted(digest for of_kind in parts.values() for digest, found in of_kind.items() if found == part)
    return np.stack([pictures.features[d] for d in chosen]), np.array([pictures.labels[d] for d in chosen])


def _described(
    options: FitOptions, pictures: _Pictures, parts: Mapping[bool, Mapping[str, Part]]
) -> dict[str, JsonValue]:
    """Return what the head was made of, without paths of this machine."""
    counts: dict[str, JsonValue] = {
        name: {part: list(parts[kind].values()).count(part) for part in PARTS}
        for name, kind in (("positive", True), ("negative", False))
    }
    return {
        "format": FORMAT,
        "encoder": options.encoder,
        "encoder_digest": model_digest(options.encoder, "--encoder"),
        "seed": options.seed,
        "images": counts,
        "copies": pictures.copies,
        "unreadable": len(pictures.unreadable),
    }


def _metadata(document: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return the document as the texts that a safetensors file holds."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in document.items()}


def _print(document: Mapping[str, Any]) -> None:
    """Print the evaluation as tables."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=_PIPE_WIDTH)
    test = document["test"]
    table = _table("images", *PARTS)
    for kind, counts in document["images"].items():
        table.add_row(kind, *(f"{counts[part]:,}" for part in PARTS))
    console.print(table)
    console.print(f"copies left out {document['copies']:,}, unreadable {document['unreadable']:,}")
    console.print(f"\non the test part, C = {document['chosen_c']:g}:")
    for name, label in (
        ("accuracy", "accuracy at 0.5"), ("auc", "AUC"), ("true_positive_rate", "true positive rate at 0.5"),
        ("false_positive_rate", "false positive rate at 0.5"), ("brier", "Brier score"),
    ):  # fmt: skip
        console.print(f"  {label:<27} {test[name]:.4f}")
    reliability = _table("probability", "images", "mean", "positive")
    for found in test["reliability"]:
        shown = (
            "-" if found[name] is None else f"{found[name]:.3f}" for name in ("mean_probability", "positive_share")
        )
        reliability.add_row(f"{found['low']:.1f} to {found['high']:.1f}", f"{found['images']:,}", *shown)
    console.print()
    console.print(reliability)


def _table(first: str, *columns: str) -> Table:
    table = Table(first, box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right")
    return table
