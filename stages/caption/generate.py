"""caption.generate: candidates for every image of an archive, ranked twice and weighed by the rotation rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from operator import attrgetter
from typing import Any

import polars as pl
from PIL import Image

from manifests.canonical import JsonValue
from manifests.ledger import Departures, count_by_source
from manifests.recipe import Settings
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import empty_frame
from stages.caption.captioner import Candidate, Captioner, NotCaptioned
from stages.caption.judge import Judge, Judged
from stages.caption.opening import open_bounded
from stages.caption.settings import KEYS, CaptionSettings
from stages.encoder import Placement, numeric_profile, resolve_device
from stages.images import Place, read_images
from stages.pictures import PictureError
from stages.step import Input, Output, Prior, Result, Step, Tables, Task
from stages.wording import clean

_OF_FETCHED = ["sample_id", "url", "tar", "offset", "length", "sha256"]
_JUDGED = ("index", "text", "seed", "score_a", "rank_a", "score_b", "rank_b", "rotation_variance")
_columns = attrgetter(*_JUDGED)

Key = tuple[str, str]
Found = list[Judged] | NotCaptioned


class Generate(Step):
    """Makes candidates and scores them; every candidate is kept with its scores and seed.

    An image that was captioned before under an equal row fingerprint is not captioned again.
    """

    name = "caption.generate"
    kind = "map"
    VERSION = 2
    reads = KEYS
    asks = ("caption.batch", "caption.precision", "run.device")
    inputs = (Input("outlier.cut", "survivors"), Input("download.fetch", "fetched"))
    outputs = ("caption_candidates", "survivors")
    keeps = "survivors"
    carries = True
    lanes = ("rs3",)
    batched = "caption.batch"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Caption the partition's images.

        Raises:
            CorruptFileError: For stored bytes that changed.
            ModelMissingError: If a model is not at hand.
            OutOfMemoryError: If a device does not hold a batch.
        """
        wanted = CaptionSettings.read(task.settings)
        survivors = tables.frame("outlier.cut", "survivors")
        rows = tables.frame("download.fetch", "fetched", _OF_FETCHED).join(
            survivors.select("sample_id", "source"), on="sample_id"
        )
        known = _taken_over(prior, rows)
        recorded = len(known)
        todo = rows.join(_keys(known), on=["sample_id", "sha256"], how="anti").sort("sha256", "sample_id")
        if todo.height:
            placement = _placement(task.settings, _batch(task))
            captioner, judge = wanted.make_captioner(placement), wanted.make_judge(placement)
            for batch in todo.iter_slices(placement.batch):
                known.update(_captioned(tables.store, batch, captioner, judge))
        departures = _departures(task, rows, known)
        kept = survivors.join(_keys(known, captioned=True), on="sample_id", how="semi")
        return Result(
            outputs=[Output("caption_candidates", _candidates(rows, known)), Output("survivors", kept)],
            ledger=departures.frame(),
            seen=count_by_source(survivors),
            kept=count_by_source(kept),
            facts={**wanted.constants(), "captioned_images": todo.height, "recorded_images": recorded},
        )

    def profile(self, settings: Settings) -> dict[str, str]:
        """Return what the numbers depend on: device kind, precision, batch, library versions."""
        placement = _placement(settings, settings.integer(self.batched))
        lora = {"peft": version("peft")} if settings.text("caption.lora") else {}
        return numeric_profile(placement) | lora

    def models(self, settings: Settings) -> dict[str, str]:
        """Return the captioner and the encoders with their revisions or digests."""
        return CaptionSettings.read(settings).models()

    def pins(self, settings: Settings, params: Mapping[str, JsonValue]) -> dict[str, str]:
        """Return the digest of the vocabulary, where captions are composed.

        Raises:
            ModelMissingError: If there is none of that name.
        """
        del params
        wanted = CaptionSettings.read(settings)
        return {f"vocabulary {wanted.vocabulary}": wanted.words().digest} if wanted.captioner == "compose" else {}


def _batch(task: Task) -> int:
    whole, given = task.settings.integer("caption.batch"), task.params.get("batch")
    return given if isinstance(given, int) else whole


def _placement(settings: Settings, batch: int) -> Placement:
    return Placement(resolve_device(settings.text("run.device")), settings.text("caption.precision"), batch)


def _captioned(store: Store, batch: pl.DataFrame, captioner: Captioner, judge: Judge) -> Iterator[tuple[Key, Found]]:
    """Yield what becomes of a batch of images.

    They are opened one at a time, as they are read: no more than one picture is held at its full size.
    """
    names: list[Key] = list(batch.select("sample_id", "sha256").iter_rows())
    places = [Place(**row) for row in batch.select("tar", "offset", "length", "sha256").iter_rows(named=True)]
    opened: dict[int, Image.Image] = {}
    for index, body in read_images(store, places):
        try:
            opened[index] = open_bounded(body)
        except PictureError as error:
            yield names[index], NotCaptioned(f"no picture a model can take: {error}")
    pictures = {names[index]: opened[index] for index in sorted(opened)}
    drawn = captioner.candidates([(sample_id, picture) for (sample_id, _), picture in pictures.items()])
    numbered: dict[Key, list[tuple[int, Candidate]]] = {}
    for name, mine in zip(pictures, map(_cleaned, drawn), strict=True):
        if isinstance(mine, NotCaptioned):
            yield name, mine
        else:
            numbered[name] = mine
    if numbered:
        judged = judge.judge([pictures[name] for name in numbered], list(numbered.values()))
        yield from zip(numbered, judged, strict=True)


def _cleaned(drawn: list[Candidate] | NotCaptioned) -> list[tuple[int, Candidate]] | NotCaptioned:
    """Return the candidates that say something, as one clean line each, with their numbers."""
    if isinstance(drawn, NotCaptioned):
        return drawn
    lines = [(number, Candidate(clean(candidate.text), candidate.seed)) for number, candidate in enumerate(drawn)]
    return [(n, candidate) for n, candidate in lines if candidate.text] or NotCaptioned("every candidate was empty")


def _taken_over(prior: Prior, rows: pl.DataFrame) -> dict[Key, Found]:
    """Return what is known of the images by sample id and sha256: a candidate's seed depends on the sample."""
    wanted = rows.select("sample_id", "sha256")
    known: dict[Key, Found] = {}
    for commit in prior.commits(rows["url"].to_list()):
        if len(known) == wanted.height:
            break
        candidates = commit.frame("caption_candidates").join(wanted, on=["sample_id", "sha256"], how="semi")
        for (sample_id, sha256), mine in candidates.sort("sample_id", "index").group_by(
            "sample_id", "sha256", maintain_order=True
        ):
            judged = [Judged(**row) for row in mine.select(_JUDGED).iter_rows(named=True)]
            known.setdefault((str(sample_id), str(sha256)), judged)
        failed = commit.ledger().join(wanted, on=["sample_id", "sha256"], how="semi")
        for sample_id, sha256, detail in failed.select("sample_id", "sha256", "detail").iter_rows():
            known.setdefault((sample_id, sha256), NotCaptioned(detail or ""))
    return known


def _keys(known: Mapping[Key, Found], *, captioned: bool = False) -> pl.DataFrame:
    keys = [key for key, found in known.items() if not (captioned and isinstance(found, NotCaptioned))]
    return pl.DataFrame(keys, schema={"sample_id": pl.String, "sha256": pl.String}, orient="row")


def _departures(task: Task, rows: pl.DataFrame, known: Mapping[Key, Found]) -> Departures:
    departures = Departures(task.step, final=task.final)
    for sample_id, source, sha256 in rows.select("sample_id", "source", "sha256").iter_rows():
        found = known[sample_id, sha256]
        if isinstance(found, NotCaptioned):
            departures.add(source, sample_id, "caption.failed", sha256=sha256, detail=found.detail)
    return departures


def _candidates(rows: pl.DataFrame, known: Mapping[Key, Found]) -> pl.DataFrame:
    listed: list[tuple[Any, ...]] = []
    for key in rows.select("sample_id", "sha256").iter_rows():
        found = known[key]
        if not isinstance(found, NotCaptioned):
            listed += [(*key, *_columns(one)) for one in found]
    schema = empty_frame(TABLES["caption_candidates"]).schema
    frame = pl.DataFrame(
        listed, schema={name: schema[name] for name in ("sample_id", "sha256", *_JUDGED)}, orient="row"
    )
    return frame.select(schema.names())
