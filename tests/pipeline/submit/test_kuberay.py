"""The RayJob: as reviewed, valid for Kubernetes, sized by the steps, and data stays data."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.recipe_files import RecipeError, dump_recipe, load_recipe
from pipeline.errors import UserError
from pipeline.submit.kuberay import FILE, KUSTOMIZATION, hand_over, name_of, render
from pipeline.submit.needs import job_needs, placed
from pipeline.submit.order import RECIPE_FILE, Order

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docker" / "rayjob.example.yaml"
GOLDEN = Path(__file__).with_name("golden")
IMAGE = 'cluster.kubernetes.image="registry.example.org/rs5m-build:cpu"'
GPU = ('cluster.kubernetes.gpu_image="registry.example.org/rs5m-build:gpu"', 'run.device="cuda"')
SETTINGS = (
    IMAGE,
    *GPU,
    'cluster.kubernetes.namespace="rs"',
    'cluster.kubernetes.service_account="rs5m"',
    'cluster.kubernetes.pull_secret="registry"',
    'cluster.kubernetes.secret="rs5m-store"',
    "cluster.kubernetes.workers=64",
    "cluster.kubernetes.workers_min=2",
    "cluster.kubernetes.gpu_workers=8",
    "cluster.kubernetes.gpu_workers_min=0",
    'cluster.kubernetes.gpu_nodes={"nvidia.com/gpu.product"="NVIDIA-A100"}',
    "cluster.drain_s=900",
    'cluster.job_cpus={"outlier.embed"=12}',
)
# The fields of a RayJob that KubeRay documents, and those it cannot do without.
JOB = {
    "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "runtimeEnvYAML", "submitterPodTemplate", "rayClusterSpec", "activeDeadlineSeconds", "suspend", "jobId", "metadata",
    "submitterConfig", "clusterSelector", "managedBy", "deletionStrategy", "entrypointNumCpus", "entrypointNumGpus",
    "entrypointResources",
}  # fmt: skip
CLUSTER = {
    "rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions",
    "headServiceAnnotations", "suspend", "gcsFaultToleranceOptions", "managedBy", "upgradeStrategy",
}  # fmt: skip
GROUP = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "idleTimeoutSeconds", "rayStartParams",
    "template", "scaleStrategy", "resources", "labels", "suspend",
}  # fmt: skip


def _order(*overrides: str, recipe: str = "rs5m", workdir: str = "s3://rs5m/build") -> Order:
    settings = load_recipe(recipe, overrides)
    needs = job_needs(settings)
    return Order(placed(settings, needs), workdir, "/home/me/jobs/rs5m", "/home/me", ("rs5m-build",), needs, overrides)


def _files(order: Order) -> dict[str, str]:
    return {file.name: file.text for file in render(order)}


def _job(order: Order) -> dict[str, Any]:
    return dict(yaml.safe_load(_files(order)[FILE]))


def _pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    workers = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    head = {"head": cluster["headGroupSpec"]["template"], "submitter": job["spec"]["submitterPodTemplate"]}
    return head | workers


@pytest.mark.parametrize(
    ("golden", "overrides"),
    [(EXAMPLE, SETTINGS), (GOLDEN / "kuberay.plain.yaml.txt", (IMAGE,))],
    ids=["the example beside the images", "plain"],
)
def test_the_job_is_the_one_that_was_read_and_approved(golden: Path, overrides: tuple[str, ...]) -> None:
    """RS5M_WRITE_GOLDEN=1 writes it anew: read the difference before it is committed."""
    text = _files(_order(*overrides))[FILE].replace(f'"{version("ray")}"', '"2.60.0"')
    if os.environ.get("RS5M_WRITE_GOLDEN"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


@pytest.mark.parametrize("overrides", [(IMAGE,), SETTINGS])
def test_kubernetes_takes_every_pod(overrides: tuple[str, ...]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    for name, template in _pods(_job(_order(*overrides))).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
        validate(pod, "1.31", strict=True)


def test_the_check_would_refuse_a_wrong_pod() -> None:
    module = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    spec = _pods(_job(_order(IMAGE)))["head"]["spec"] | {"terminationGracePeriod": 5}
    with pytest.raises(module.ValidationError):
        module.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}, "1.31", strict=True
        )


@pytest.mark.parametrize("overrides", [(IMAGE,), SETTINGS])
def test_every_field_of_the_job_is_one_that_kuberay_knows(overrides: tuple[str, ...]) -> None:
    job = _job(_order(*overrides))
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= JOB
    assert set(cluster) <= CLUSTER
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= GROUP
        assert {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"} <= set(group)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    parameters = [group["rayStartParams"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert all(isinstance(value, str) for table in parameters for value in table.values()), "a map of strings"
    assert job["spec"]["submissionMode"] in {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
    assert cluster["authOptions"] == {"mode": "token"}, "who can reach the dashboard may not run code by that alone"


def test_workers_are_as_large_as_the_largest_step_of_their_group() -> None:
    order = _order(*SETTINGS)
    groups = {g["groupName"]: g for g in _job(order)["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for name, group in groups.items():
        needs = [need for need in order.needs.values() if bool(need.gpus) == (name == "gpu")]
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["cpu"] == str(max(need.cpus for need in needs))
        assert container["resources"]["limits"]["memory"] == f"{max(need.memory_gb for need in needs)}Gi"
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == ("1" if name == "gpu" else None)
    assert groups["gpu"]["template"]["spec"]["containers"][0]["image"].endswith(":gpu")
    assert (groups["cpu"]["minReplicas"], groups["cpu"]["maxReplicas"]) == (2, 64)


def test_without_a_step_that_wants_a_gpu_there_are_no_pods_with_one() -> None:
    cluster = _job(_order(IMAGE))["spec"]["rayClusterSpec"]
    assert [group["groupName"] for group in cluster["workerGroupSpecs"]] == ["cpu"]
    assert cluster["enableInTreeAutoscaling"] is False


@pytest.mark.parametrize("overrides", [(IMAGE,), SETTINGS])
def test_every_pod_is_unprivileged_and_has_time_to_drain(overrides: tuple[str, ...]) -> None:
    order = _order(*overrides)
    for name, template in _pods(_job(order)).items():
        spec = template["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {"requests", "limits"} == set(container["resources"]), name
        if name != "submitter":
            assert spec["terminationGracePeriodSeconds"] > order.largest.drain_s
            variables = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == str(order.largest.drain_s)
            disks = [volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume]
            assert len(disks) == 2
            assert all("sizeLimit" in disk for disk in disks)
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts["scratch"] == variables["TMPDIR"]


def test_keys_come_from_the_secret_and_stand_in_no_file() -> None:
    for name, template in _pods(_job(_order(*SETTINGS))).items():
        (container,) = template["spec"]["containers"]
        asked = [{"secretRef": {"name": "rs5m-store"}}] if name != "submitter" else None
        assert container.get("envFrom") == asked
        assert template["spec"]["serviceAccountName"] == "rs5m"


NASTY = 's3://b/it\'s; $HOME `id` "x" # no: comment \\ \u00e9 \U0001f6f0'


def test_the_run_gets_the_words_it_was_meant_to_get() -> None:
    """The entrypoint is read by YAML, then by the submitter's shell; Ray quotes it again for the head's."""
    for workdir in ("s3://rs5m/build", NASTY):
        words = shlex.split(_job(_order(*SETTINGS, workdir=workdir))["spec"]["entrypoint"])
        assert words[:2] == ["rs5m-build", "run"]
        assert words[words.index("--workdir") + 1] == workdir
        assert words[words.index("--recipe") + 1] == "/etc/rs5m/recipe.toml"


def test_a_cluster_that_grows_is_waited_for() -> None:
    def waits(*overrides: str) -> list[str]:
        words = shlex.split(_job(_order(IMAGE, *overrides))["spec"]["entrypoint"])
        return [word for word in words if "ray_wait_s" in word]

    assert waits() == []
    assert waits("cluster.kubernetes.workers_min=0") == ["run.ray_wait_s=1800"]
    assert waits("cluster.kubernetes.workers_min=0", "run.ray_wait_s=60") == [], "the recipe says it"


def test_the_container_that_grows_it_is_unprivileged_too() -> None:
    options = _job(_order(*SETTINGS))["spec"]["rayClusterSpec"]["autoscalerOptions"]
    assert options["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_names_and_labels_are_data_too() -> None:
    label = 'cluster.kubernetes.nodes={"a"="}, image: \\"evil\\" #"}'
    pod = _pods(_job(_order(IMAGE, label)))["head"]["spec"]
    assert pod["nodeSelector"] == {"a": '}, image: "evil" #'}
    with pytest.raises(RecipeError, match="namespace"):
        _order(IMAGE, 'cluster.kubernetes.namespace="x}\\nkind: Secret"')
    with pytest.raises(RecipeError, match="workers_min is above workers"):
        _order(IMAGE, "cluster.kubernetes.workers_min=9")


def test_its_name_is_one_that_kuberay_takes() -> None:
    order = _order(IMAGE)
    long = order.recipe.model_copy(update={"name": "a_very-" + "long" * 14})
    name = name_of(Order(long, order.workdir, order.folder, order.directory, order.program, order.needs))
    assert len(name) <= 47
    assert name.startswith("rs5m-a-very-long")


def test_what_cannot_work_is_refused_with_a_word() -> None:
    with pytest.raises(UserError, match="image is empty"):
        render(_order())
    with pytest.raises(UserError, match="pods do not see"):
        render(_order(IMAGE, workdir="/home/me/build"))
    with pytest.raises(UserError, match="pods do not see"):
        render(_order(IMAGE, workdir="file:///home/me/build"))
    with pytest.raises(UserError, match="memory of one process"):
        render(_order(IMAGE, workdir="memory://rs5m"))
    with pytest.raises(UserError, match=r"compose\.yaml"):
        render(_order(IMAGE, recipe="mini"))


def test_kubectl_puts_the_recipe_beside_the_job(tmp_path: Path) -> None:
    order = _order(*SETTINGS)
    for name, text in {**_files(order), RECIPE_FILE: dump_recipe(order.recipe)}.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert set(_files(order)) == {FILE, KUSTOMIZATION}
    assert hand_over(order).command == ("kubectl", "create", "--kustomize", ".")
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    made = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    documents = {document["kind"]: document for document in yaml.safe_load_all(made.stdout)}
    assert set(documents) == {"ConfigMap", "RayJob"}
    assert documents["RayJob"] == _job(order)
    recipe = documents["ConfigMap"]
    assert recipe["data"] == {RECIPE_FILE: dump_recipe(order.recipe)}
    assert recipe["metadata"]["namespace"] == documents["RayJob"]["metadata"]["namespace"] == "rs"
    volumes = _pods(documents["RayJob"])["head"]["spec"]["volumes"]
    assert volumes[0] == {"name": "recipe", "configMap": {"name": recipe["metadata"]["name"]}}
