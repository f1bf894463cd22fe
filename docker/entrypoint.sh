#!/usr/bin/env bash
# What a container of the image runs:
#   head [ray start options]     the head of a Ray cluster, with its dashboard; runs no tasks unless --num-cpus says so
#   worker [ray start options]   a Ray worker; RS5M_RAY_HEAD=HOST:PORT says of which head
#   drain                        asks a run in this container to stop, waits until it has; for preStop hooks
#   anything else                rs5m-build with these arguments
# Environment:
#   RS5M_RAY_HEAD                HOST:PORT of a Ray head; `run` joins that cluster first, because Ray wants a
#                                node on every machine that a driver runs on. This one offers no CPUs and no GPUs
#   RS5M_RAY_TMP                 folder of Ray's sessions and logs; short, because sockets lie there; default: /tmp/ray
#   RS5M_RAY_SPILL               folder that Ray spills objects to; default: in RS5M_RAY_TMP
#   RS5M_OBJECT_STORE_BYTES      shared memory for Ray's objects; image bytes never go there; default: 256 MiB
#   RS5M_RAY_WAIT_S              how long a head is waited for; default: 300
#   RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S   how long a node that is told to stop finishes its tasks; Ray's default: 30
#   TMPDIR                       scratch of the tasks, unless the recipe's run.scratch names another
# Signals: SIGTERM and SIGUSR1 reach rs5m-build, which finishes what is running, starts nothing new and exits with 143.
set -euo pipefail

export RAY_USAGE_STATS_ENABLED=0

# As pid 1 a process gets no signal that it has not asked for, and every orphan of the container becomes its child, to be
# reaped. So pid 1 stays this shell: it hands signals on to the command, reaps, and exits as the command did.
supervise() {
    local child="" early="" code=0
    # shellcheck disable=SC2317,SC2329  # called by the traps
    hand_on() {
        if [[ -n $child ]]; then kill -s "$1" "$child" 2>/dev/null || true; else early=$1; fi
    }
    trap 'hand_on TERM' TERM HUP
    trap 'hand_on USR1' USR1
    # A background job of a shell ignores Ctrl-C; a drain is what can be passed on.
    trap 'hand_on TERM' INT
    "$@" &
    child=$!
    if [[ -n $early ]]; then hand_on "$early"; fi
    # A signal ends `wait` early: it is asked again until the command has really gone.
    while true; do
        code=0
        wait "$child" || code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    exit "$code"
}

# Become the command; as pid 1, its parent.
start() {
    if [[ $$ -eq 1 ]]; then supervise "$@"; else exec "$@"; fi
}

ray_tmp=${RS5M_RAY_TMP:-/tmp/ray}
# What every node of Ray is started with.
node=(--disable-usage-stats --object-store-memory "${RS5M_OBJECT_STORE_BYTES:-268435456}")
node+=(--temp-dir "$ray_tmp" --object-spilling-directory "${RS5M_RAY_SPILL:-$ray_tmp/spill}")

# Wait until a head answers at RS5M_RAY_HEAD.
wait_for_head() {
    local host=${RS5M_RAY_HEAD%:*} port=${RS5M_RAY_HEAD##*:} left=${RS5M_RAY_WAIT_S:-300}
    until (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; do
        if ((left-- <= 0)); then
            echo "rs5m-entrypoint: no Ray head answers at $RS5M_RAY_HEAD; is it started, and is the name right?" >&2
            exit 2
        fi
        sleep 1
    done
}

# Print the ids of the processes here that are `rs5m-build run`.
runs() {
    local folder words i
    for folder in /proc/[0-9]*; do
        mapfile -d "" -t words 2>/dev/null <"$folder/cmdline" || continue
        for ((i = 0; i + 1 < ${#words[@]} && i < 4; i++)); do
            if [[ ${words[i]} == */rs5m-build && ${words[i + 1]} == run ]]; then echo "${folder#/proc/}"; fi
        done
    done
}

case ${1:-} in
head)
    shift
    # The dashboard listens on all interfaces of the container; which of them the world sees is told where the port is
    # published (compose.yaml: loopback alone). The head keeps its CPUs for the driver.
    start ray start --head --block --port 6379 --dashboard-host 0.0.0.0 --num-cpus 0 "${node[@]}" "$@"
    ;;
worker)
    shift
    : "${RS5M_RAY_HEAD:?HOST:PORT of the Ray head}"
    wait_for_head
    start ray start --block --address "$RS5M_RAY_HEAD" "${node[@]}" "$@"
    ;;
drain)
    for process in $(runs); do kill -s TERM "$process" 2>/dev/null || true; done
    while [[ -n $(runs) ]]; do sleep 1; done
    ;;
*)
    if [[ -n ${RS5M_RAY_HEAD:-} && ${1:-} == run ]]; then
        wait_for_head
        # People's text goes to stderr, since stdout is for programs.
        ray start --address "$RS5M_RAY_HEAD" --num-cpus 0 --num-gpus 0 "${node[@]}" >&2
    fi
    start rs5m-build "$@"
    ;;
esac
