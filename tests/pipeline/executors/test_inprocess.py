"""One worker: tasks run when they are submitted."""

from pipeline.executors.inprocess import InProcess
from pipeline.worker import Outcome


def test_each_task_is_handed_back_once(tasks, collect):
    executor = InProcess(tasks.store, 60)
    assert executor.wait(0.0) == []
    for spec in tasks.all[:2]:
        executor.submit(spec)
    assert [finished.spec for finished in executor.wait(0.0)] == tasks.all[:2]
    assert executor.wait(0.0) == []
    executor.close(kill=False)


def test_a_bad_task_and_one_over_its_deadline_leave_the_others_alone(tasks, collect):
    executor = InProcess(tasks.store, 0.3)
    for spec in (tasks.failing, tasks.hanging, tasks.all[0]):
        executor.submit(spec)
    found = collect(executor, 3)
    assert found["failing"].outcome.kind == "error"
    assert found["failing"].outcome.message.startswith("MetadataError: ")
    assert found["hanging"].outcome.kind == "deadline"
    assert isinstance(found[tasks.all[0].partition].outcome, Outcome)
    executor.close(kill=True)
