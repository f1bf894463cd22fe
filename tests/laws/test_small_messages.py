"""What travels between driver and workers is small: images go by path and range, never through an executor."""

import dataclasses
import pickle

from pipeline.executors.inprocess import InProcess
from pipeline.executors.processes import Processes
from pipeline.worker import Outcome, TaskSpec

# One entry a partition of an input: path, digest, size; and one a source and reason of the books.
_BASE_BYTES = 8_192
_PER_FILE_BYTES = 512
_TINY_BYTES = 64


def _bytes_in(value: object) -> int:
    """Return the length of the largest bytes object in a value."""
    if isinstance(value, bytes | bytearray | memoryview):
        return len(value)
    if dataclasses.is_dataclass(value):
        return max((_bytes_in(getattr(value, f.name)) for f in dataclasses.fields(value)), default=0)
    if hasattr(value, "model_dump"):
        return _bytes_in(value.model_dump())
    if isinstance(value, dict):
        return max((_bytes_in(part) for pair in value.items() for part in pair), default=0)
    if isinstance(value, list | tuple | set | frozenset):
        return max(map(_bytes_in, value), default=0)
    return 0


def _files(spec: TaskSpec) -> int:
    return len(spec.inputs) + sum(len(prior.tables) + 1 for prior in spec.prior)


def test_tasks_and_outcomes_of_a_whole_build_are_kilobytes(fresh, monkeypatch) -> None:
    sent: dict[str, tuple[int, int]] = {}
    answered: dict[str, tuple[int, int]] = {}
    largest = 0
    submit, wait = InProcess.submit, InProcess.wait

    def submitting(self, spec):
        nonlocal largest
        largest = max(largest, _bytes_in(spec))
        sent[spec.name] = (len(pickle.dumps(spec)), _files(spec))
        submit(self, spec)

    def waiting(self, timeout_s):
        nonlocal largest
        finished = wait(self, timeout_s)
        for one in finished:
            assert isinstance(one.outcome, Outcome)
            largest = max(largest, _bytes_in(one.outcome))
            answered[one.spec.name] = (len(pickle.dumps(one.outcome)), len(one.outcome.outputs))
        return finished

    monkeypatch.setattr(InProcess, "submit", submitting)
    monkeypatch.setattr(InProcess, "wait", waiting)
    monkeypatch.setattr(Processes, "submit", None)  # nothing may go another way
    assert fresh.run().exit_code == 0
    assert len(sent) > 20
    for messages in (sent, answered):
        over = {
            n: (size, files) for n, (size, files) in messages.items() if size > _BASE_BYTES + _PER_FILE_BYTES * files
        }
        assert over == {}
    assert largest <= _TINY_BYTES
    images = sum(file.stat().st_size for file in (fresh.path / "data/download.fetch").rglob("*.tar"))
    assert sum(size for size, _ in (*sent.values(), *answered.values())) < images
