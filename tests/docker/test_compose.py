"""compose.yaml: every service pinned, unprivileged, checked, and led to the same store and cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker" / "compose.yaml"
SECRETS = ("RS5M_S3_KEY", "RS5M_S3_SECRET", "RS5M_RAY_TOKEN")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text("utf-8"))["services"])


def test_it_has_a_store_a_bucket_a_head_workers_and_a_build(services: dict[str, Any]) -> None:
    assert list(services) == ["store", "bucket", "head", "worker", "build"]
    ours = {name for name, service in services.items() if service["image"] == "rs5m-build:cpu"}
    assert ours == {"head", "worker", "build"}


def test_no_service_may_more_than_a_user(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert not {"privileged", "network_mode", "pid", "devices", "cap_add"} & set(service), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_images_of_others_are_named_by_release(services: dict[str, Any]) -> None:
    for name in ("store", "bucket"):
        assert re.fullmatch(r"quay\.io/minio/(minio|mc):RELEASE\.[\dTZ-]+", services[name]["image"]), name


def test_only_the_dashboard_is_published_and_on_loopback(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"head": ["127.0.0.1:8265:8265"]}


def test_everything_that_is_kept_lies_in_a_named_volume(services: dict[str, Any]) -> None:
    named = set(yaml.safe_load(FILE.read_text("utf-8"))["volumes"])
    mounts = {mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])}
    assert mounts == named


def test_who_waits_for_whom_is_checked_for_health(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] in ("service_healthy", "service_completed_successfully"), (name, other)
            assert (how["condition"] == "service_healthy") == ("healthcheck" in services[other]), (name, other)
    assert set(services["build"]["depends_on"]) == {"head", "bucket"}


def test_secrets_come_from_outside_and_are_asked_for() -> None:
    text = FILE.read_text("utf-8")
    uses = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    assert {name for name, _ in uses} == set(SECRETS)
    assert all(rest.startswith(":?") for _, rest in uses), "an empty one stops compose with a word"
    example = (ROOT / "docker" / "compose.env.example").read_text("utf-8")
    assert re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE) == [(name, "") for name in SECRETS]
    assert "docker/.env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_the_build_drives_the_cluster_over_the_store(services: dict[str, Any]) -> None:
    build, bucket = services["build"], services["bucket"]["command"][-1]
    arguments = build["command"]
    at = {arguments[i]: arguments[i + 1] for i in range(1, len(arguments), 2)}
    assert arguments[0] == "run"
    assert at["--ray-address"] == build["environment"]["RS5M_RAY_HEAD"] == "head:6379"
    assert at["--workdir"].startswith(f"s3://{bucket.partition('/')[2]}/")
    assert build["environment"]["AWS_ENDPOINT_URL"] == "http://store:9000"
    address = build["networks"]["default"]["ipv4_address"]
    assert at["--set"] == f'world.bind="{address}"'


def test_its_command_line_is_one(services: dict[str, Any]) -> None:
    from typer.testing import CliRunner

    from pipeline.cli import app

    shown = CliRunner().invoke(app, [*services["build"]["command"], "--help"])
    assert shown.exit_code == 0, shown.output


def test_compose_itself_reads_it(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker with its plugin compose is not installed")
    environment = {**os.environ, **dict.fromkeys(SECRETS, "abc123")}
    read = subprocess.run(
        [docker, "compose", "-f", FILE, "config", "--quiet"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert read.returncode == 0, read.stderr
