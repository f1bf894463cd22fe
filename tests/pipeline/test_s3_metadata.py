"""Metadata on S3 (moto's server on loopback), workdir on the local disk: globs, row groups, gz, bad and new files."""

import gzip
import io
import logging

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from manifests.identity import file_digest
from manifests.store import Store
from pipeline import metadata
from stages.uris import ChangedFileError, open_unchanged
from tests.pipeline.recipes_of_ones_own import TEXTS, build_of, captions

SOURCES = """
[sources.laion2b]
metadata = ["s3://metadata/laion2b/part-*.parquet"]
[sources.cc3m]
metadata = ["s3://metadata/cc3m/*.tsv*"]
"""


def _parquet(word: str, rows: int, group: int) -> bytes:
    table = pa.table({
        "URL": [f"http://{word}.example/{number}" for number in range(rows)],
        "TEXT": [TEXTS[number % len(TEXTS)] for number in range(rows)],
    })  # fmt: skip
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=group)
    return file.getvalue()


@pytest.fixture(scope="module")
def endpoint():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def put(endpoint, monkeypatch):
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="metadata")
    fsspec.filesystem("s3").clear_instance_cache()
    yield lambda key, body: client.put_object(Bucket="metadata", Key=key, Body=body)
    for entry in client.list_objects_v2(Bucket="metadata").get("Contents", []):
        client.delete_object(Bucket="metadata", Key=entry["Key"])


def test_a_filter_over_metadata_on_s3_is_that_over_the_same_files_here(put, tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "PARTITION_ROWS", 8)
    here = build_of(tmp_path / "here", SOURCES.replace("s3://metadata/", "meta/"))
    there = build_of(tmp_path / "there", SOURCES)
    text = captions(here.workdir / "meta/cc3m/a.tsv", 12).read_bytes()
    files = {"laion2b/part-0.parquet": _parquet("x", 20, 4), "laion2b/part-1.parquet": _parquet("y", 6, 4)}
    files |= {
        "cc3m/a.tsv": text,
        "cc3m/b.tsv.gz": gzip.compress(text.replace(b"//t", b"//b"), mtime=0),
        "laion2b/other.parquet": _parquet("z", 6, 4),
    }
    for key, body in files.items():
        put(key, body)
        (here.workdir / "meta" / key).parent.mkdir(parents=True, exist_ok=True)
        (here.workdir / "meta" / key).write_bytes(body)
    for build in (here, there):
        done = build.call("run", "--stage", "filter")
        assert done.exit_code == 0, done.err
    assert len(here.commits("filter.match")) == 2 + 3 + 1
    assert here.commits("filter.match") == there.commits("filter.match")
    digests = [[o["rows_digest"] for m in b.manifests("filter.pool") for o in m["outputs"]] for b in (here, there)]
    assert digests[0] == digests[1] != []
    assert "nothing to do" in there.call("run", "--stage", "filter").err
    listed = {s["source"]: s for s in there.call("sources", "--json").json["sources"]}
    assert [(listed[key]["files"], listed[key]["rows"]) for key in ("laion2b", "cc3m")] == [(2, 26), (2, 24)]

    put("laion2b/part-1.parquet", _parquet("changed", 6, 4))
    put("laion2b/part-2.parquet", _parquet("x", 20, 4)[:300])
    done = there.call("run", "--stage", "filter")
    assert done.exit_code == 3
    (failed,) = [line for line in done.err.splitlines() if line.startswith("FAILED")]
    assert "s3://metadata/laion2b/part-2.parquet: not readable as Parquet" in failed
    assert len(set(there.commits("filter.match")) - set(here.commits("filter.match"))) == 1


def test_an_object_that_changes_is_noticed(put, tmp_path):
    body = b"first\n" * 1000
    put("cc3m/c.tsv", body)
    store, uri = Store(str(tmp_path)), "s3://metadata/cc3m/c.tsv"
    with open_unchanged(store, uri, file_digest(io.BytesIO(body))) as file:
        assert file.read(6) == b"first\n"
    put("cc3m/c.tsv", body + b"more\n")
    changed = open_unchanged(store, uri, file_digest(io.BytesIO(body)))
    with pytest.raises(ChangedFileError, match=r"s3://metadata/cc3m/c\.tsv: changed"), changed as file:
        file.read()
