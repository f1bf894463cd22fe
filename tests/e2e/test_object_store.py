"""A whole nano build with its workdir on S3 (moto's server on loopback): the release is that of a local build."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from tests.world_building import QUICK, Snapshot

ROOT = Path(__file__).parents[2]


def run(uri: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = [part for override in QUICK for part in ("--set", override)]
    here = ["run", "--recipe", "nano", "--workdir", uri, *settings, *arguments]
    command = [sys.executable, "-m", "pipeline.cli", *here]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


def test_a_build_on_s3_releases_the_same_bytes_and_settles(reference: Snapshot) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        environment = {**os.environ, **keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        named = {
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "region_name": "us-east-1",
            "endpoint_url": f"http://{host}:{port}",
        }
        client = boto3.client("s3", **named)
        client.create_bucket(Bucket="bucket")

        done = run("s3://bucket/work", environment)
        assert done.returncode == 0, done.stderr
        released = {}
        for entry in client.list_objects_v2(Bucket="bucket", Prefix="work/release/")["Contents"]:
            body = client.get_object(Bucket="bucket", Key=entry["Key"])["Body"].read()
            released[entry["Key"].removeprefix("work/")] = hashlib.sha256(body).hexdigest()
        assert released == dict(reference.release)

        again = run("s3://bucket/work", environment)
        assert again.returncode == 0
        assert "nothing to do" in again.stderr
    finally:
        server.stop()
