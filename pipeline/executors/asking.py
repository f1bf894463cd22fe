"""What tasks of each step ask of a cluster: a share of a GPU, and resources that only some nodes have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manifests.recipe_run import Run
from pipeline.errors import UserError
from pipeline.executors.base import needs_gpu
from pipeline.executors.nodes import Needs
from pipeline.worker import TaskSpec

_EVERY = "*"


class Asking:
    """Tells what a task asks for.

    Attributes:
        wait_s: How long a step waits for a node that can do it; 0: the cluster does not grow by itself.
    """

    def __init__(self, gpu_share: float, resources: Mapping[str, Mapping[str, float]], wait_s: float) -> None:
        self._gpu_share = gpu_share
        self._resources = resources
        self.wait_s = wait_s

    def __call__(self, spec: TaskSpec) -> Needs:
        """Return what a task asks for."""
        resources = self._resources.get(spec.step, self._resources.get(_EVERY, {}))
        return Needs(spec.step, self._gpu_share if needs_gpu(spec) else 0.0, resources)


def asking(run: Run, steps: Sequence[str]) -> Asking:
    """Return what the recipe says.

    Raises:
        UserError: If ``run.ray_resources`` names a step that is none, one of Ray's own resources, or an amount above
            one that is no whole number, which Ray does not take.
    """
    for step, resources in run.ray_resources.items():
        if step not in {*steps, _EVERY}:
            raise UserError(f'run.ray_resources: {step!r} is no step; steps are {", ".join(steps)}, and "*" is all')
        for name, amount in resources.items():
            if name in {"CPU", "GPU", "memory", "object_store_memory"}:
                raise UserError(
                    f"run.ray_resources: {name} is Ray's own: a task takes 1 CPU, and run.gpu_share of a GPU"
                )
            if amount > 1 and amount != int(amount):
                raise UserError(f"run.ray_resources: {step} asks for {amount:g} {name}: above one, give a whole number")
    return Asking(run.gpu_share, run.ray_resources, run.ray_wait_s)


PLAIN = Asking(1.0, {}, 0.0)
"""Nothing but a CPU, and a whole GPU where a task needs one."""
