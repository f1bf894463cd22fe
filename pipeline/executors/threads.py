"""One thread a worker: there are as many workers as CPUs, and a thread a CPU in each would slow all of them down."""

from __future__ import annotations

ENVIRONMENT = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""What a worker process must find in its environment when it starts: these are read once, at the first import."""


def use_one_thread() -> None:
    """Leave pyarrow one thread for work of the CPU; called in a worker."""
    import pyarrow as pa

    if pa.cpu_count() != 1:
        pa.set_cpu_count(1)
