"""Where the work runs, and by how many, is no part of the result: release and ledgers are the same bytes."""

import pytest

WAYS = [("local", 2), ("ray", 1), ("ray", 2)]


@pytest.mark.parametrize(("executor", "workers"), WAYS)
def test_it_builds_what_one_local_worker_builds(fresh, reference, executor, workers):
    done = fresh.cli("--executor", executor, "--workers", str(workers))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert fresh.snapshot() == reference


def test_the_command_line_builds_what_the_function_builds(fresh, reference):
    assert fresh.cli("--workers", "1").returncode == 0
    assert fresh.snapshot() == reference
