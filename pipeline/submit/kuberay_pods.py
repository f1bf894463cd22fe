"""The pods of a RayJob: head, workers, and the one that hands the job over. Templates as text, with their comments."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from manifests.recipe_kubernetes import Kubernetes
from pipeline.submit.yaml_text import flow, quoted

_STOP_S = 30  # after the drain: for Ray's own processes
_RESTRICTED = """\
# Not root, and no way to become it: pods that a namespace under the restricted standard takes.
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 0
  seccompProfile: {type: RuntimeDefault}"""
_UNPRIVILEGED = """\
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}"""


@dataclass(frozen=True, slots=True)
class Group:
    """Workers that are alike.

    Attributes:
        name: What Kubernetes calls it.
        image: Of their container.
        cpus: Cores of a pod.
        memory_gb: Memory of a pod, in units of 2**30 bytes.
        gpus: GPUs of a pod.
        least: Pods that always stand.
        most: Pods at most.
        nodes: Labels of the nodes they may stand on.
    """

    name: str
    image: str
    cpus: int
    memory_gb: int
    gpus: int
    least: int
    most: int
    nodes: Mapping[str, str]


def head_pod(wanted: Kubernetes, name: str, recipe_folder: str, drain_s: int, *, indent: int) -> str:
    """Return the template of the pod that drives the build; the recipe is mounted into it."""
    text = f"""\
spec:
  # Long enough to drain.
  terminationGracePeriodSeconds: {drain_s + _STOP_S}
{_indented(_account(wanted), 2)}
{_indented(_RESTRICTED, 2)}
{_indented(_nodes(wanted.nodes), 2)}
  containers:
    - name: ray-head
      image: {quoted(wanted.image)}
      ports:
        - {{containerPort: 6379, name: gcs-server}}
        - {{containerPort: 8265, name: dashboard}}
        - {{containerPort: 10001, name: client}}
      resources:
        requests: {{cpu: "{wanted.head_cpus}", memory: {wanted.head_memory_gb}Gi}}
        limits: {{cpu: "{wanted.head_cpus}", memory: {wanted.head_memory_gb}Gi}}
{_indented(_UNPRIVILEGED, 6)}
{_indented(_environment(wanted, drain_s), 6)}
      lifecycle:
        preStop:
          exec:
            # A pod that has to go asks the run to stop, and waits for it.
            command: [rs5m-entrypoint, drain]
      volumeMounts:
        - {{name: recipe, mountPath: {recipe_folder}, readOnly: true}}
{_indented(_MOUNTS, 8)}
  volumes:
    - name: recipe
      configMap: {{name: {quoted(f"{name}-recipe")}}}
{_indented(_volumes(wanted), 4)}"""
    return _clean(text, indent)


def worker_pod(wanted: Kubernetes, group: Group, drain_s: int, *, indent: int) -> str:
    """Return the template of a group's pods."""
    gpus = f', nvidia.com/gpu: "{group.gpus}"' if group.gpus else ""
    resources = f'{{cpu: "{group.cpus}", memory: {group.memory_gb}Gi{gpus}}}'
    tolerations = """\
# Nodes with GPUs keep others away by this taint.
tolerations:
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}"""
    text = f"""\
spec:
  # Long enough for a worker to finish its tasks.
  terminationGracePeriodSeconds: {drain_s + _STOP_S}
  # Tasks do not speak to Kubernetes.
  automountServiceAccountToken: false
{_indented(_account(wanted), 2)}
{_indented(_RESTRICTED, 2)}
{_indented(_nodes(group.nodes), 2)}
{_indented(tolerations if group.gpus else "", 2)}
  containers:
    - name: ray-worker
      image: {quoted(group.image)}
      resources:
        # What the largest step of the group asks for; Ray hands it out among tasks.
        requests: {resources}
        limits: {resources}
{_indented(_UNPRIVILEGED, 6)}
{_indented(_environment(wanted, drain_s), 6)}
      volumeMounts:
{_indented(_MOUNTS, 8)}
  volumes:
{_indented(_volumes(wanted), 4)}"""
    return _clean(text, indent)


def submitter_pod(wanted: Kubernetes, *, indent: int) -> str:
    """Return the template of the pod that hands the job to the cluster and prints its log."""
    text = f"""\
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
{_indented(_account(wanted), 2)}
{_indented(_RESTRICTED, 2)}
  containers:
    - name: ray-job-submitter
      image: {quoted(wanted.image)}
      resources:
        requests: {{cpu: 500m, memory: 512Mi}}
        limits: {{cpu: "1", memory: 1Gi}}
{_indented(_UNPRIVILEGED, 6)}"""
    return _clean(text, indent)


_MOUNTS = """\
- {name: scratch, mountPath: /scratch}
- {name: ray, mountPath: /tmp/ray}"""


def _volumes(wanted: Kubernetes) -> str:
    return f"""\
# Images on their way, one partition at a time for each task.
- name: scratch
  emptyDir: {{sizeLimit: {wanted.scratch_gb}Gi}}
# Ray's logs, and objects it spills.
- name: ray
  emptyDir: {{sizeLimit: {wanted.spill_gb}Gi}}"""


def _environment(wanted: Kubernetes, drain_s: int) -> str:
    text = f"""\
env:
  - {{name: RAY_USAGE_STATS_ENABLED, value: "0"}}
  # How long a pod that has to go finishes its tasks.
  - {{name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: "{drain_s}"}}
  - {{name: TMPDIR, value: /scratch}}"""
    if wanted.secret:
        text += f"""
# Keys of the object store: every entry of the Secret as a variable.
envFrom:
  - secretRef: {{name: {quoted(wanted.secret)}}}"""
    return text


def _account(wanted: Kubernetes) -> str:
    lines = [f"serviceAccountName: {quoted(wanted.service_account)}"] if wanted.service_account else []
    lines += [f"imagePullSecrets: [{{name: {quoted(wanted.pull_secret)}}}]"] if wanted.pull_secret else []
    return "\n".join(lines)


def _nodes(labels: Mapping[str, str]) -> str:
    return f"nodeSelector: {flow(labels)}" if labels else ""


def _indented(text: str, indent: int) -> str:
    return textwrap.indent(text, " " * indent)


def _clean(text: str, indent: int) -> str:
    """Return the text indented, without the lines that stood for what is not asked for."""
    return _indented("\n".join(line for line in text.splitlines() if line.strip()), indent)
