"""One Slurm job over several nodes: it starts Ray on them, runs the whole line, and ends Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from pipeline.submit.order import JobNeed, Order
from pipeline.submit.shell import array, noted
from pipeline.submit.slurm_job import drained, head, inside, options, settings, surroundings, waited

_RAY_GB = 2  # Ray's own processes and its object store, on each node
_OBJECT_STORE_BYTES = 256 << 20  # image bytes never travel through Ray
_PATIENCE_S = 600


def ray_job_text(order: Order, file: str) -> str:
    """Return the batch script of the job."""
    largest = order.largest
    need = replace(largest, memory_gb=largest.memory_gb + _RAY_GB, tasks=1)
    nodes = order.recipe.cluster.nodes
    lines = [
        "#!/usr/bin/env bash",
        f"# {file}: the whole line on {nodes} node{'s'[: nodes > 1]} under Ray",
        *head(order),
        *options(order, "line", need, nodes=nodes),
        "",
        *surroundings(order),
        "",
        *array("build", [*inside(order, order.program, gpus=need.gpus), "run", *settings(order), "--executor ray"]),
        *array("ray", inside(order, (_ray(order),), gpus=need.gpus)),
        *array("start", ["srun --overlap --nodes=1 --ntasks=1", '--cpus-per-task="$SLURM_CPUS_PER_TASK"', "--mem=0"]),
        noted("export RAY_USAGE_STATS_ENABLED=0", "Ray reports to nobody"),
        noted("export RAY_AUTH_MODE=token", "and takes orders from this job alone"),
        "RAY_AUTH_TOKEN=$(head --bytes=32 /dev/urandom | sha256sum | head --bytes=64)",
        "export RAY_AUTH_TOKEN",
        "",
        *drained(order, need),
        "",
        *_cluster(need),
        "",
        *_run(),
    ]
    return "\n".join(lines) + "\n"


def _ray(order: Order) -> str:
    """Return Ray's command, which lies beside the project's own or the interpreter it is run with."""
    program = PurePosixPath(order.program[0])
    return str(program.with_name("ray")) if program.is_absolute() else "ray"


def _cluster(need: JobNeed) -> list[str]:
    each = f"--num-cpus={need.cpus} --num-gpus={need.gpus} --disable-usage-stats --block"
    return [
        noted('mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")', "this script runs on the first"),
        "address=$(hostname --ip-address)",
        "case $address in",
        noted("    127.*) address=$(hostname --all-ip-addresses) ;;", "a name that other nodes cannot use"),
        "esac",
        noted("address=${address%% *}", "the first, of a node with several"),
        noted("port=$((20000 + SLURM_JOB_ID % 20000))", "jobs that share a node begin at different ones"),
        noted('while (: < "/dev/tcp/$address/$port") 2> /dev/null; do', "somebody answers there"),
        "    port=$((port + 1))",
        "done",
        "",
        "# Each Ray process is a step of the job and ends with it at the latest. `ray stop` would also end those of",
        "# this user's other jobs on the node.",
        "started=()",
        'for node in "${nodes[@]}"; do',
        '    if [ "$node" = "${nodes[0]}" ]; then',
        '        role=(--head --node-ip-address="$address" --port="$port" --include-dashboard=false)',
        "    else",
        '        role=(--address="$address:$port")',
        "    fi",
        '    "${start[@]}" --nodelist="$node" "${ray[@]}" start "${role[@]}" \\',
        f"        {each} --object-store-memory={_OBJECT_STORE_BYTES} &",
        "    started+=($!)",
        "",
        "    # A node joins when the head answers; and nothing is run before all have joined.",
        f"    for ((waited = 0; waited < {_PATIENCE_S}; waited += 2)); do",
        '        joined=$("${ray[@]}" status --address="$address:$port" 2> /dev/null | grep -c "node_")',
        '        [ "$joined" -ge "${#started[@]}" ] && break',
        '        kill -0 "${started[-1]}" 2> /dev/null || break',
        "        sleep 2",
        "    done",
        '    echo "Ray on $node: ${joined:-0} of ${#nodes[@]} nodes"',
        noted('    [ "${joined:-0}" -gt 0 ] || break', "no head: nothing to join"),
        "done",
        "end_ray() {",
        '    kill "${started[@]}" 2> /dev/null',
        "    wait",
        "}",
    ]


def _run() -> list[str]:
    return [
        'if [ -n "$warned" ] || [ "${joined:-0}" -eq 0 ]; then',
        "    end_ray",
        '    [ -z "$warned" ] || come_back',
        '    echo "no node of this job could start Ray: see above" >&2',
        "    exit 2",
        "fi",
        '"${build[@]}" --ray-address "$address:$port" &',
        "child=$!",
        *waited(""),
        "end_ray",
        noted('[ "$code" -eq 0 ] || [ -z "$warned" ] || come_back', "0 settled, 143 stopped in time"),
        'exit "$code"',
    ]
