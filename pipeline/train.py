"""`rs5m-build train`: tars of a release, a model and a recipe come to checkpoints, and to a commit that says so.

Under torchrun every rank runs this; rank 0 looks, locks, writes and commits, and tells the others what it found.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from types import FrameType

from manifests.commits import CommitStore
from manifests.fingerprint import Parts
from manifests.manifest import Manifest
from manifests.models import ModelSpec, resolve
from manifests.recipe import Recipe
from manifests.recipe_train import DECIDES
from manifests.store import Store
from pipeline.build import default_workers
from pipeline.errors import UserError
from pipeline.interrupts import Interrupts
from pipeline.locks import Lock
from pipeline.train_commit import STEP, commit_training, committed_training, put_made, run_folder
from pipeline.train_shards import Shard, at_hand, named_shards, released_shards
from pipeline.workdir import open_workdir
from stages.step import ModelMissingError, OutOfMemoryError
from stages.train.fit import fit
from stages.train.job import VERSION, DivergedError, Fitted, Job, Record, Surroundings
from stages.train.members import ShardError, read_members
from stages.train.memory import Memory, estimate_memory
from stages.train.model import Trainee, load_trainee
from stages.train.order import Shares
from stages.train.ranks import Ranks, joined
from stages.train.recall import validation_members
from stages.train.samples import Samples
from stages.train.transforms import Transform

_LOCK = f"{STEP}.0of1"
_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "tokenizers", "pillow", "numpy")


@dataclass(frozen=True, slots=True)
class Planned:
    """What a training would do.

    Attributes:
        recipe: The resolved recipe.
        spec: The model it starts from.
        shards: The tars, by name.
        parts: What the fingerprint is made of.
        steps_of_epoch: Whole batches of an epoch.
        pairs: Pairs in the training tars.
        validation_pairs: Pairs that recall is taken over.
        incomplete: Samples of the tars without a picture or a caption.
        job: What `stages.train.fit` is asked.
        committed: The commit of an equal training that is done; None if it is to do.
        memory: Filled where asked for.
    """

    recipe: Recipe
    spec: ModelSpec
    shards: list[Shard]
    parts: Parts
    steps_of_epoch: int
    pairs: int
    validation_pairs: int
    incomplete: int
    job: Job
    committed: Manifest | None
    memory: Memory | None = None

    @property
    def folder(self) -> str:
        """Where log and checkpoints are, below the workdir."""
        return f"train/{self.parts.fingerprint[:16]}"


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended.

    Attributes:
        planned: What was asked.
        fitted: None if there was nothing to do.
        signal_code: 130 or 143 if a signal stopped it.
        leads: Whether this process is rank 0.
    """

    planned: Planned
    fitted: Fitted | None
    signal_code: int = 0
    leads: bool = True


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told what.

    Attributes:
        say: One line for people.
        planned: Told what will be done, before it starts, on rank 0.
        record: Told every record of the log, on rank 0.
    """

    say: Callable[[str], None]
    planned: Callable[[Planned], None] = lambda _: None
    record: Callable[[Record], None] = lambda _: None


class Stops(Interrupts):
    """Ctrl-C too stops a training at its next step, with a checkpoint; a second one stops it at once."""

    def __enter__(self) -> Stops:
        super().__enter__()
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._ctrl_c)
        return self

    def _ctrl_c(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.draining:
            raise KeyboardInterrupt
        self.exit_code = 130


def train(recipe: Recipe, store: Store, shards: str, watcher: Watcher) -> Trained:
    """Train, or go on where a run under equal settings was stopped, or find that it is done.

    Args:
        recipe: The resolved recipe.
        store: The workdir; log, checkpoints and the commit go here.
        shards: A pattern of local tars; empty: the workdir's release.
        watcher: Who is told.

    Raises:
        UserError, WorkdirError, LockHeldError: Each with one line that says what to do.
    """
    open_workdir(store, recipe.name, create=bool(shards))
    with ExitStack() as stack:
        stops = stack.enter_context(Stops())
        ranks = stack.enter_context(_ranks(recipe))
        if ranks.leads:
            stack.enter_context(Lock(store, _LOCK, recipe.run.lock_beat_s, watcher.say))
        stack.enter_context(_in_one_line())
        planned, train_samples, validation, trainee = _planned(recipe, store, shards, ranks, watcher.say)
        if ranks.leads:
            watcher.planned(planned)
        if planned.committed:
            return Trained(planned, None, leads=ranks.leads)
        folder = run_folder(store, planned.folder, ranks)
        around = Surroundings(
            ranks=ranks,
            folder=folder,
            workers=_workers(recipe, ranks),
            listen=watcher.record,
            stop=lambda: stops.draining,
            saved=lambda checkpoint: put_made(store, planned.folder, checkpoint),
        )
        with _threads(ranks):
            fitted = fit(trainee, train_samples, validation, planned.job, around)
        if ranks.leads:
            put_made(store, planned.folder, folder / "log.jsonl")
            if fitted.complete:
                commit_training(store, planned.parts, planned.folder, fitted, planned.pairs)
        return Trained(planned, fitted, 0 if fitted.complete else stops.exit_code, ranks.leads)


def plan_training(recipe: Recipe, store: Store, shards: str, say: Callable[[str], None]) -> Planned:
    """Return what `train` would do, with an estimate of the memory it takes; nothing is written. Raises as `train`."""
    open_workdir(store, recipe.name, create=bool(shards))
    with _ranks(recipe) as ranks, _in_one_line():
        planned, _, _, trainee = _planned(recipe, store, shards, ranks, say)
        memory = estimate_memory(
            trainee, planned.job.precision, planned.job.batch // ranks.world // planned.job.accumulate
        )
    return replace(planned, memory=memory)


def _planned(
    recipe: Recipe, store: Store, pattern: str, ranks: Ranks, say: Callable[[str], None]
) -> tuple[Planned, Samples, Samples | None, Trainee]:
    settings = recipe.train
    if settings.batch % (ranks.world * settings.accumulate):
        raise UserError(
            f"train.batch = {settings.batch} cannot be cut into {ranks.world} ranks x {settings.accumulate} parts "
            "(train.accumulate): choose numbers that divide it"
        )
    if settings.precision == "amp_fp16" and ranks.device == "cpu":
        raise UserError('train.precision = "amp_fp16" needs a GPU; on the CPU use "fp32" or "amp_bf16"')
    try:
        spec = resolve(settings.model, "train.model")
    except ValueError as error:
        raise UserError(str(error)) from error
    commits = CommitStore(store)
    shards = _shards(store, commits, pattern, ranks)
    paths = at_hand(store, shards, say, check=ranks.local == 0)
    ranks.wait()
    trainee = load_trainee(spec, lock_image=settings.lock_image, lock_text=settings.lock_text)
    augmented = Transform(trainee.preprocess, settings.transform, recipe.seed)
    members, held_out = (
        read_members([path for shard, path in zip(shards, paths, strict=True) if shard.split == split])
        for split in ("train", "val")
    )
    watched = validation_members(held_out, settings.val_pairs, recipe.seed)
    steps_of_epoch = Shares(settings.batch).steps(len(members))
    steps = settings.steps or max(1, int(settings.epochs * steps_of_epoch))
    parts = _parts(recipe, spec, shards, ranks)
    planned = Planned(
        recipe=recipe,
        spec=spec,
        shards=shards,
        parts=parts,
        steps_of_epoch=steps_of_epoch,
        pairs=len(members),
        validation_pairs=len(watched),
        incomplete=members.incomplete,
        job=_job(recipe, steps),
        committed=committed_training(store, commits, parts),
    )
    plain = Transform(trainee.preprocess, "eval", recipe.seed)
    validation = Samples(watched, plain, trainee.tokenizer) if len(watched) else None
    return planned, Samples(members, augmented, trainee.tokenizer), validation, trainee


def _shards(store: Store, commits: CommitStore, pattern: str, ranks: Ranks) -> list[Shard]:
    """Return the tars as rank 0 sees them: one answer for all ranks."""
    told = ""
    if ranks.leads:
        found = named_shards(pattern) if pattern else released_shards(store, commits)
        told = json.dumps([asdict(shard) for shard in found])
    shards = [Shard(**fields) for fields in json.loads(ranks.share(told))]
    if not any(shard.split == "train" for shard in shards):
        raise UserError(f"no training tars: {pattern or store.uri} has only validation tars")
    return shards


def _parts(recipe: Recipe, spec: ModelSpec, shards: list[Shard], ranks: Ranks) -> Parts:
    flat = recipe.flat()
    return Parts(
        inputs=sorted(("shard.pack" if s.released else "shards", s.name, s.sha256) for s in shards),
        recipe={key: flat[key] for key in ("seed", *(f"train.{name}" for name in DECIDES))},
        code=VERSION,
        models={spec.name: spec.digest},
        profile={
            "device": ranks.device.partition(":")[0],
            "ranks": str(ranks.world),
            **{name: _version(name) for name in _LIBRARIES},
        },
    )


def _job(recipe: Recipe, steps: int) -> Job:
    settings = recipe.train
    return Job(
        steps=steps,
        batch=settings.batch,
        accumulate=settings.accumulate,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        warmup_steps=settings.warmup_steps,
        grad_clip_norm=settings.grad_clip_norm,
        precision=settings.precision,
        seed=recipe.seed,
        log_every_steps=settings.log_every_steps,
        eval_every_steps=settings.eval_every_steps,
        checkpoint_every_steps=settings.checkpoint_every_steps,
        keep_checkpoints=settings.keep_checkpoints,
    )


def _workers(recipe: Recipe, ranks: Ranks) -> int:
    """Return how many processes read for a rank: this machine's share of the CPUs, but for the one that trains."""
    on_machine = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", str(ranks.world))))
    return max(1, (recipe.run.workers or default_workers()) // on_machine - 1)


@contextmanager
def _threads(ranks: Ranks) -> Iterator[None]:
    """Let torch use the CPUs of this process; loading a model may have set it to one thread."""
    import torch

    before = torch.get_num_threads()
    on_machine = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", str(ranks.world))))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, default_workers() // on_machine))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _ranks(recipe: Recipe) -> Iterator[Ranks]:
    try:
        with joined(recipe.run.device) as ranks:
            yield ranks
    except ValueError as error:
        raise UserError(str(error)) from error


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn what a user can put right into one line."""
    try:
        yield
    except (ShardError, ModelMissingError, DivergedError, OutOfMemoryError) as error:
        raise UserError(str(error)) from error


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
