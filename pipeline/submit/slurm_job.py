"""One Slurm job of the chain: its options, its surroundings, and work that stops in time and comes back."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.submit.binds import named_folders
from pipeline.submit.order import RECIPE_FILE, JobNeed, Order
from pipeline.submit.shell import array, clock, expandable, noted, option, pattern, quoted, raw_option


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the chain.

    Attributes:
        file: Its file's name.
        name: What it is called in the queue.
        steps: What it runs, one after the other.
        need: What it asks for.
        sliced: Whether it is an array whose tasks share the step's partitions.
    """

    file: str
    name: str
    steps: tuple[str, ...]
    need: JobNeed
    sliced: bool = False

    @property
    def slices(self) -> int:
        """How many tasks share the step; 0: one job does all of it."""
        return self.need.tasks if self.sliced else 0


def job_text(order: Order, job: Job) -> str:
    """Return the batch script of a job."""
    runs = [f"work --stage {step}" for step in job.steps]
    if job.sliced:
        # Not SLURM_ARRAY_TASK_COUNT: `sbatch --array=3,7 FILE` must mean the same slices as before.
        runs[0] = noted(f'{runs[0]} --slice "$SLURM_ARRAY_TASK_ID/{job.slices}"', "this task's share")
    elif len(runs) > 1:
        runs[0] = noted(runs[0], "what tasks of the array left undone: mostly nothing")
    lines = [
        "#!/usr/bin/env bash",
        f"# {job.file}: {_about(job)}",
        *head(order),
        *options(order, job.name, job.need, slices=job.slices),
        "",
        *surroundings(order),
        "",
        *_build(order, job.need),
        "",
        *drained(order, job.need, sliced=job.sliced),
        "",
        *_work(),
        "",
        *runs,
    ]
    return "\n".join(lines) + "\n"


def head(order: Order) -> list[str]:
    """Return comment lines that say where a file comes from."""
    said = " ".join(f"--set {quoted(value)}" for value in order.overrides)
    return [
        f"# Of the build {order.recipe.name}, by rs5m-build submit. Settings stand in {RECIPE_FILE} beside this file,",
        f"# {said} included." if said else "# and a later change of the original recipe does not reach this job.",
    ]


def options(order: Order, name: str, need: JobNeed, *, slices: int = 0, nodes: int = 1) -> list[str]:
    """Return the lines that tell Slurm what a job needs."""
    cluster = order.recipe.cluster
    partition = (cluster.gpu_partition if need.gpus else "") or cluster.partition
    limit = f"%{cluster.array_limit}" if cluster.array_limit else ""
    log = f"{pattern(order.folder)}/logs/%x.{'%A_%a' if slices else '%j'}.log"
    lines = [option("job-name", f"{order.recipe.name}.{name}")]
    if slices:
        said = f"{slices} tasks" + (f", {cluster.array_limit} at a time" if limit else "")
        lines.append(option("array", f"0-{slices - 1}{limit}", said))
    lines += [option(key, value) for key, value in _placement(order, partition).items() if value]
    if nodes > 1:
        lines.append(option("nodes", str(nodes)))
    lines += [
        option("ntasks-per-node", "1"),
        option("cpus-per-task", str(need.cpus), "of each node" if nodes > 1 else f"for {need.workers} workers"),
        option("mem", f"{need.memory_gb}G", "of each node"),
    ]
    if need.gpus:
        lines.append(option("gres", f"gpu:{need.gpus}", "of each node"))
    lines += [
        option("time", clock(need.hours), "met: the job starts again, see below"),
        option("signal", f"B:USR1@{need.drain_s}", "s before that; B: to this shell alone"),
        noted("#SBATCH --requeue", "a lost node starts the job again"),
        option("kill-on-invalid-dep", "yes", "do not wait for ever behind a job that failed"),
        option("chdir", order.directory),
        option("output", log),
        option("open-mode", "append", "a job that starts again keeps its log"),
        *(raw_option(line) for line in cluster.extra),
    ]
    return lines


def _placement(order: Order, partition: str) -> dict[str, str]:
    cluster = order.recipe.cluster
    told = {"partition": partition, "account": cluster.account, "qos": cluster.qos}
    return told | {"constraint": cluster.constraint}


def surroundings(order: Order) -> list[str]:
    """Return the lines before the work: modules, the recipe's own lines, a folder on the node's disk."""
    cluster = order.recipe.cluster
    lines = [noted(f"module load {quoted(name)}", "cluster.modules") for name in cluster.modules]
    lines += [noted(line, "cluster.setup") for line in cluster.setup]
    lines.append(noted("set -u", "not before: modules may read what is not set"))
    if cluster.scratch:
        lines += [noted(f"scratch={expandable('cluster.scratch', cluster.scratch)}", "on the node's own disk")]
        lines += ['mkdir -p -- "$scratch"']
    return lines


def inside(order: Order, program: tuple[str, ...], *, gpus: int) -> list[str]:
    """Return the words that run a program on a node, in the container if there is one, as lines of an array."""
    cluster = order.recipe.cluster
    if not cluster.container:
        return [" ".join(quoted(word) for word in program)]
    own = [place for place in (order.directory, order.folder, order.workdir) if place.startswith("/")]
    within = tuple(f"{place}/" for place in own)
    named = [place for place in named_folders(order.recipe) if not f"{place}/".startswith(within)]
    places = dict.fromkeys([*own, *named])
    seen = [f"--bind {quoted(place)}" for place in places]
    seen += ['--bind "$scratch"'] if cluster.scratch else []
    enter = "apptainer exec --nv" if gpus else "apptainer exec"
    bound = "# Bound: where the jobs were submitted, their files, the workdir, folders the recipe names, scratch."
    return [bound, enter, *seen, quoted(cluster.container), " ".join(quoted(word) for word in program)]


def settings(order: Order) -> list[str]:
    """Return the options of `run` that every job has, as lines of an array."""
    lines = [f"--recipe {quoted(order.recipe_path)}", f"--workdir {quoted(order.workdir)}"]
    return lines + (['--set "run.scratch=$scratch"'] if order.recipe.cluster.scratch else [])


def _build(order: Order, need: JobNeed) -> list[str]:
    run = [*inside(order, order.program, gpus=need.gpus), "run", *settings(order)]
    return array("build", [*run, f"--executor local --workers {need.workers}"])


def drained(order: Order, need: JobNeed, *, sliced: bool = False) -> list[str]:
    """Return the lines that pass signals on to the run, and bring the job back after its time limit."""
    job = 'job="$SLURM_JOB_ID"'
    if sliced:  # one task of an array has the array's own number as its SLURM_JOB_ID
        job = noted('job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"', "SLURM_JOB_ID may be the whole array's")
    again = order.recipe.cluster.requeues
    return [
        f"# {need.drain_s} s before the time limit Slurm sends USR1 to this shell, which passes it on: the run then",
        "# finishes the partitions it has begun, starts no other, and ends with 143. It is not started by srun, which",
        "# would hand the signal to every process of the run. `scancel JOB` sends TERM to every process of the job,",
        "# and kills what is left after the cluster's KillWait (30 s). To have it drain and stay away:",
        "#   scancel --signal=TERM --batch JOB",
        "warned=",
        "child=",
        'trap \'warned=yes; [ -z "$child" ] || kill -USR1 "$child"\' USR1',
        'trap \'[ -z "$child" ] || kill -TERM "$child"\' TERM',
        "",
        "# The job goes back into the queue under its own number, so what waits for it goes on waiting.",
        job,
        "come_back() {",
        f'    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {again} ] && scontrol requeue "$job"; then',
        noted("        sleep 60", "until Slurm ends this shell"),
        "    else",
        '        echo "stopped at its time limit and not started again; restarts: ${SLURM_RESTART_COUNT:-0}" >&2',
        "    fi",
        noted("    exit 143", "the job behind an array does the rest; another one fails"),
        "}",
    ]


def _work() -> list[str]:
    return [
        "# One step or a slice of it. A run ends with 0 settled, 2 not started, 3 something failed, 4 books broken.",
        "work() {",
        '    [ -z "$warned" ] || come_back',
        '    "${build[@]}" "$@" &',
        "    child=$!",
        noted('    [ -z "$warned" ] || kill -USR1 "$child"', "it came between the two lines above"),
        *waited("    "),
        '    [ "$code" -eq 0 ] && return',
        '    [ -z "$warned" ] || come_back',
        '    exit "$code"',
        "}",
    ]


def waited(indent: str) -> list[str]:
    """Return the lines that wait for the child and keep its exit code; a trapped signal cuts `wait` short."""
    lines = [
        'wait "$child"; code=$?',
        noted('while kill -0 "$child" 2> /dev/null; do', "a signal that is passed on cuts `wait` short"),
        '    wait "$child"; code=$?',
        "done",
        "child=",
    ]
    return [indent + line for line in lines]


def _about(job: Job) -> str:
    if job.sliced:
        return f"the map step {job.steps[0]}, its partitions shared by {job.slices} tasks"
    if len(job.steps) == 1:
        return f"what the tasks of {job.steps[0]} left undone, before the next step begins"
    return f"what the tasks of {job.steps[0]} left undone, then {', '.join(job.steps[1:])}"
