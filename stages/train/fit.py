"""The training loop: steps, log, validation, checkpoints. Stopped at any step, it goes on to the same end."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stages.step import OutOfMemoryError
from stages.train.checkpoint import (
    Progress,
    checkpoint_path,
    checkpoints,
    load_checkpoint,
    prune,
    read_progress,
    save_checkpoint,
    set_aside,
    sweep,
)
from stages.train.gradients import Backward, distributed_model
from stages.train.job import DivergedError, Fitted, Job, Record, Surroundings
from stages.train.loader import Batch, Loader, Position
from stages.train.log import Log, read_log
from stages.train.model import Trainee
from stages.train.optimise import Schedule, adamw, clamp_logit_scale, gradient_norm, set_learning_rate
from stages.train.order import Shares
from stages.train.recall import evaluate
from stages.train.samples import REASONS, Samples

if TYPE_CHECKING:
    from torch import Tensor


def fit(trainee: Trainee, train: Samples, validation: Samples | None, job: Job, around: Surroundings) -> Fitted:
    """Train to the end, or until asked to stop; what an earlier call left in the folder is gone on from.

    On the CPU in float32 with as many threads, stopping and going on gives the same weights bit for bit.

    Raises:
        ShardError: If there are too few usable samples.
        DivergedError: If the loss is no number any more.
        OutOfMemoryError: If the device's memory does not hold a part of a batch.
    """
    import torch

    try:
        return _Fit(trainee, train, validation, job, around).run()
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"the {around.ranks.device} device does not hold {job.batch} pairs over {around.ranks.world} ranks in "
            f"{job.accumulate} parts: raise train.accumulate, or lower train.batch"
        ) from error


class _Fit:
    def __init__(
        self, trainee: Trainee, train: Samples, validation: Samples | None, job: Job, around: Surroundings
    ) -> None:
        import torch

        self.trainee, self.train, self.validation, self.job, self.around = trainee, train, validation, job, around
        ranks = around.ranks
        if ranks.device != "cpu":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        trainee.model.to(ranks.device)
        self.optimiser = adamw(trainee.model, job.lr, job.weight_decay, job.betas, job.eps)
        self.schedule = Schedule(job.lr, job.warmup_steps, job.steps)
        scaled = job.precision == "amp_fp16"
        self.scaler = torch.amp.GradScaler(ranks.device.partition(":")[0]) if scaled else None
        wrapped = distributed_model(trainee.model, ranks)
        self.backward = Backward(trainee.model, wrapped, ranks, job.precision, self.scaler, job.seed)
        self.recall: dict[int, dict[str, float]] = {}

        self._clock_s, self._clock_step = time.perf_counter(), 0

    def run(self) -> Fitted:
        around, ranks = self.around, self.around.ranks
        progress, checkpoint = self._resumed()
        self._log = Log(around.folder / "log.jsonl", progress.step) if ranks.leads else None
        if progress.step == 0:
            self._evaluate(0)
        if progress.step < self.job.steps:
            progress, checkpoint = self._steps(progress)
        assert checkpoint is not None
        skipped = {reason: sum(p.skipped.get(reason, 0) for p in progress.positions) for reason in REASONS}
        recall = recorded_recall(around.folder / "log.jsonl") if ranks.leads else {}
        return Fitted(progress.step, checkpoint, progress.step >= self.job.steps, skipped, recall)

    def _steps(self, progress: Progress) -> tuple[Progress, Path | None]:
        job, around, checkpoint = self.job, self.around, None
        self._clock_s, self._clock_step = time.perf_counter(), progress.step
        with closing(self._batches(progress)) as batches:
            for step in range(progress.step, job.steps):
                parts = list(itertools.islice(batches, job.accumulate))
                done, last = step + 1, step + 1 == job.steps
                logged = last or done % job.log_every_steps == 0
                loss, norm = self._step(parts, step, measured=logged)
                stopping = around.ranks.any(around.stop())
                saved = last or stopping or _due(done, job.checkpoint_every_steps)
                if logged or saved:
                    progress = Progress(done, self._gathered(parts[-1].after), self._scaler_state())
                if logged:
                    self._say_step(progress, loss, norm)
                if last or _due(done, job.eval_every_steps):
                    self._evaluate(done)
                if saved:
                    checkpoint = self._save(progress, loss)
                if stopping:
                    break
        return progress, checkpoint

    def _step(self, parts: list[Batch], step: int, *, measured: bool) -> tuple[Tensor, Tensor | None]:
        """Do one optimiser step; return the loss, and the norm of the gradients where it is asked for."""
        model, clip = self.trainee.model, self.job.grad_clip_norm
        self.trainee.train_mode()
        set_learning_rate(self.optimiser, self.schedule.at(step))
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.backward(parts, step)
        if self.scaler and (clip or measured):
            self.scaler.unscale_(self.optimiser)
        norm = gradient_norm(model, clip) if clip or measured else None
        if self.scaler:
            self.scaler.step(self.optimiser)
            self.scaler.update()
        else:
            self.optimiser.step()
        clamp_logit_scale(model)
        return loss, norm

    def _batches(self, progress: Progress) -> Generator[Batch, None, None]:
        job, ranks = self.job, self.around.ranks
        shares = Shares(job.batch, ranks.rank, ranks.world)
        size, start = shares.own // job.accumulate, progress.positions[ranks.rank]
        pinned, workers = ranks.device != "cpu", self.around.workers
        loader = Loader(self.train, shares, size, job.seed, workers=workers, start=start, pinned=pinned)
        yield from loader

    def _say_step(self, progress: Progress, loss: Tensor, norm: Tensor | None) -> None:
        ranks, now_s = self.around.ranks, time.perf_counter()
        value = self._finite(loss, progress.step)
        pairs = (progress.step - self._clock_step) * self.job.batch
        record: Record = {
            "step": progress.step,
            "steps": self.job.steps,
            "batch": self.job.batch,
            "epoch": progress.positions[0].epoch,
            "loss": value,
            "lr": self.schedule.at(progress.step - 1),
            "logit_scale": float(self.trainee.model.get_parameter("logit_scale").detach().exp()),
            "grad_norm": float(norm) if norm is not None else None,
            "skipped": sum(sum(position.skipped.values()) for position in progress.positions),
            "images_per_s": round(pairs / max(now_s - self._clock_s, 1e-9), 2),
        }
        self._clock_s, self._clock_step = now_s, progress.step
        if ranks.leads:
            self._tell(record)

    def _finite(self, loss: Tensor, step: int) -> float:
        value = self.around.ranks.mean(loss)
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss is {value} at step {step}: lower train.lr, set train.grad_clip_norm, or use another "
                "train.precision; the last checkpoint is from before"
            )
        return value

    def _evaluate(self, step: int) -> None:
        ranks, started_s = self.around.ranks, time.perf_counter()
        if ranks.leads and self.validation is not None:
            found = evaluate(self.trainee, self.validation, ranks.device, self.job.precision, self.around.workers)
            self._tell({"step": step, "steps": self.job.steps, "recall": dict(found)})
        ranks.wait()
        self._clock_s += time.perf_counter() - started_s  # speed is that of training alone

    def _tell(self, record: Record) -> None:
        if self._log:
            self._log.add(record)
        self.around.listen(record)

    def _gathered(self, own: Position) -> tuple[Position, ...]:
        counts = [own.skipped.get(reason, 0) for reason in REASONS]
        rows = self.around.ranks.gather([own.epoch, own.taken, own.cursor, *counts])
        return tuple(
            Position(row[0], row[1], row[2], {r: n for r, n in zip(REASONS, row[3:], strict=True) if n}) for row in rows
        )

    def _scaler_state(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.scaler.state_dict().items()} if self.scaler else {}

    def _save(self, progress: Progress, loss: Tensor) -> Path:
        around = self.around
        self._finite(loss, progress.step)
        started_s = time.perf_counter()
        if around.ranks.leads:
            path = save_checkpoint(around.folder, self.trainee, self.optimiser, progress)
            around.saved(path)
            prune(around.folder, self.job.keep_checkpoints)
        around.ranks.wait()
        self._clock_s += time.perf_counter() - started_s
        return checkpoint_path(around.folder, progress.step)

    def _resumed(self) -> tuple[Progress, Path | None]:
        """Take up the newest checkpoint that is whole, if there is one."""
        around, ranks = self.around, self.around.ranks
        step = 0
        if ranks.leads:
            sweep(around.folder)
            step = self._newest_whole()
        (step,), *_ = ranks.gather([step])
        if not step:
            return Progress(0, tuple(Position() for _ in range(ranks.world)), {}), None
        checkpoint = checkpoint_path(around.folder, step)
        progress = read_progress(checkpoint)
        assert progress is not None
        assert len(progress.positions) == ranks.world
        load_checkpoint(checkpoint, self.trainee, self.optimiser)
        if self.scaler:
            self.scaler.load_state_dict(progress.scaler)
        return progress, checkpoint

    def _newest_whole(self) -> int:
        """Return the step of the newest whole checkpoint, 0 without one; damaged ones are set aside and named."""
        for checkpoint in reversed(checkpoints(self.around.folder)):
            progress = read_progress(checkpoint)
            if progress is not None:
                return progress.step
            aside = set_aside(checkpoint)
            self.around.listen({"note": f"{checkpoint.name} is damaged: it is now {aside.name}, and not used"})
        return 0


def recorded_recall(log: Path) -> dict[int, dict[str, float]]:
    """Return the validation recalls of a log by step."""
    found = {record["step"]: record["recall"] for record in read_log(log) if "recall" in record}
    return cast("dict[int, dict[str, float]]", found)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
