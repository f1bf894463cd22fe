"""Kubernetes with the KubeRay operator: a RayJob, which brings a Ray cluster up, runs the build on it, and ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from manifests.recipe_kubernetes import Kubernetes
from pipeline.errors import UserError
from pipeline.submit.kuberay_pods import Group, head_pod, submitter_pod, worker_pod
from pipeline.submit.order import RECIPE_FILE, HandOver, JobFile, JobNeed, Order
from pipeline.submit.shell import quoted as shell_word
from pipeline.submit.yaml_text import quoted

FILE = "rayjob.yaml"
KUSTOMIZATION = "kustomization.yaml"
RECIPE_FOLDER = "/etc/rs5m"
_LONGEST_NAME = 47  # KubeRay makes names of pods and services of it
_IDLE_S = 300
_LOCAL_SCHEMES = ("file", "local")
_NODE_WAIT_S = 1800  # for a machine with a GPU to be rented, and for the image to be pulled onto it
_OBJECT_STORE_BYTES = 256 << 20


def render(order: Order) -> list[JobFile]:
    """Return the RayJob, and what puts the recipe beside it.

    Raises:
        UserError: If no image is named, the workdir is a local folder, or the recipe has a world.
    """
    wanted = order.recipe.cluster.kubernetes
    if not wanted.image:
        raise UserError(
            "cluster.kubernetes.image is empty: name an image of docker/Dockerfile.cpu that the cluster can pull, "
            "e.g. --set cluster.kubernetes.image=registry.example.org/rs5m-build:cpu"
        )
    scheme, mark, _ = order.workdir.partition("://")
    if scheme == "memory":
        raise UserError(
            f"--workdir {order.workdir} is the memory of one process: give an object store, s3://BUCKET/rs5m"
        )
    if not mark or scheme in _LOCAL_SCHEMES:
        raise UserError(
            f"--workdir {order.workdir} is a folder of this machine, which pods do not see: give an object store, e.g. "
            "--workdir s3://BUCKET/rs5m"
        )
    if order.recipe.world:
        raise UserError(
            f"recipe {order.recipe.name} has a [world], which the driver serves on an address that must be known "
            "before its pod is there; try the miniature with docker/compose.yaml"
        )
    return [JobFile(FILE, _rayjob(order, wanted)), JobFile(KUSTOMIZATION, _kustomization(order, wanted))]


def hand_over(order: Order) -> HandOver:
    """Return how the files reach Kubernetes."""
    return HandOver(
        "kubectl",
        ("kubectl", "create", "--kustomize", "."),
        f"kubectl is not here: run `kubectl create --kustomize {shell_word(order.folder)}` where it is",
    )


def name_of(order: Order) -> str:
    """Return the RayJob's name: letters, digits and hyphens, a letter first."""
    return f"rs5m-{order.recipe.name.replace('_', '-')}"[:_LONGEST_NAME].rstrip("-")


def summary(order: Order) -> list[str]:
    """Return what the pods ask for."""
    wanted = order.recipe.cluster.kubernetes
    lines = ["pods:", f"  head: 1 of {wanted.head_cpus} cores, {wanted.head_memory_gb} GB"]
    for group in groups(wanted, order.needs):
        count = f"{group.most}" if group.least == group.most else f"{group.least} to {group.most}"
        gpus = f", {group.gpus} GPU" if group.gpus else ""
        lines.append(f"  {group.name}: {count} of {group.cpus} cores{gpus}, {group.memory_gb} GB")
    return lines


def groups(wanted: Kubernetes, needs: Mapping[str, JobNeed]) -> list[Group]:
    """Return the groups of workers: for the steps without GPUs, and for those with, if there are any."""
    plain = [need for need in needs.values() if not need.gpus]
    model = [need for need in needs.values() if need.gpus]
    found = []
    if plain:
        found.append(Group("cpu", wanted.image, *_largest(plain), 0, wanted.workers_min, wanted.workers, wanted.nodes))
    if model:
        found.append(
            Group(
                "gpu",
                wanted.gpu_image or wanted.image,
                *_largest(model),
                max(need.gpus for need in model),
                wanted.gpu_workers_min,
                wanted.gpu_workers,
                wanted.gpu_nodes,
            )
        )
    return found


def _largest(needs: Sequence[JobNeed]) -> tuple[int, int]:
    return max(need.cpus for need in needs), max(need.memory_gb for need in needs)


def _rayjob(order: Order, wanted: Kubernetes) -> str:
    name, drain_s = name_of(order), order.largest.drain_s
    pods = groups(wanted, order.needs)
    grows = any(group.least < group.most for group in pods)
    words = ["rs5m-build", "run", "--recipe", f"{RECIPE_FOLDER}/{RECIPE_FILE}", "--workdir", order.workdir]
    words += ["--executor", "ray", "--ray-address", "auto"]
    if grows and not order.recipe.run.ray_wait_s:
        words += ["--set", f"run.ray_wait_s={_NODE_WAIT_S}"]
    entrypoint = " ".join(shell_word(word) for word in words)
    text = f"""\
# The build {order.recipe.name} on Kubernetes, by KubeRay 1.6 or newer. Written by rs5m-build submit.
#   start:   kubectl create --kustomize .            here, where {RECIPE_FILE} lies: it goes along as a ConfigMap
#   follow:  kubectl --namespace {wanted.namespace} logs --follow job/{name}
#   stop:    kubectl delete --kustomize .            drains: what runs is finished, for {drain_s} s at most
#   again:   the same two; what is done stays done
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {quoted(name)}
  namespace: {quoted(wanted.namespace)}
  labels:
    app.kubernetes.io/name: rs5m-build
spec:
  # Runs on the head; a shell reads it.
  entrypoint: {quoted(entrypoint)}
  # A pod of its own hands the job to the cluster and prints its log, so that `kubectl logs` shows it.
  submissionMode: K8sJobMode
  # A build whose driver was lost, or in which something failed, starts again with new pods, and resumes.
  backoffLimit: {wanted.retries}
  # The pods go when the job has ended, after a time for a look at their logs.
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: {wanted.keep_s}
  # Seconds to drain after the job is told to stop; Ray's own are 3.
  runtimeEnvYAML: |
    env_vars:
      RAY_JOB_STOP_WAIT_TIME_S: "{drain_s}"
  submitterPodTemplate:
{submitter_pod(wanted, indent=4)}
  rayClusterSpec:
    # Of the image; head and workers must be of one version.
    rayVersion: {quoted(version("ray"))}
    # Who may run code on the cluster: those who have the token that KubeRay makes for it.
    authOptions:
      mode: token
{_growing(grows=grows)}
    headGroupSpec:
      rayStartParams:
        # The driver's pod runs no tasks.
        num-cpus: "0"
        dashboard-host: "0.0.0.0"
        # Shared memory for Ray's objects; image bytes are none of them.
        object-store-memory: "{_OBJECT_STORE_BYTES}"
      template:
{head_pod(wanted, name, RECIPE_FOLDER, drain_s, indent=8)}
    workerGroupSpecs:
"""
    for group in pods:
        text += f"""\
      # For the steps {"with a model" if group.gpus else "without a model"}.
      - groupName: {group.name}
        replicas: {group.least}
        minReplicas: {group.least}
        maxReplicas: {group.most}
        rayStartParams:
          object-store-memory: "{_OBJECT_STORE_BYTES}"
        template:
{worker_pod(wanted, group, drain_s, indent=10)}
"""
    return text


def _growing(*, grows: bool) -> str:
    if not grows:
        return "    # The number of workers is fixed.\n    enableInTreeAutoscaling: false"
    return f"""\
    # Workers come as tasks wait for them, between minReplicas and maxReplicas, and go when they have none.
    enableInTreeAutoscaling: true
    autoscalerOptions:
      version: v2
      upscalingMode: Default
      idleTimeoutSeconds: {_IDLE_S}
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {{drop: [ALL]}}"""


def _kustomization(order: Order, wanted: Kubernetes) -> str:
    return f"""\
# Puts the resolved recipe beside the job, as the ConfigMap {name_of(order)}-recipe. Written by rs5m-build submit.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {quoted(wanted.namespace)}
resources:
  - {FILE}
configMapGenerator:
  - name: {quoted(f"{name_of(order)}-recipe")}
    files:
      - {RECIPE_FILE}
generatorOptions:
  # The job asks for it by this very name.
  disableNameSuffixHash: true
"""
