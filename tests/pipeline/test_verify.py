import json

import pytest

from manifests.store import Store
from pipeline.locks import Lock
from pipeline.verify import LAWS
from tests.pipeline.read_commands import ask
from tests.world_building import Workdir


def replace(path, body):
    """Put another body in place of a file that may be a hard link."""
    path.unlink()
    path.write_bytes(body)


def flip(path):
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0xFF
    replace(path, bytes(body))


def without_cache(workdir):
    return {path: state for path, state in workdir.listing().items() if not path.startswith("cache/")}


def law(answer, name):
    return next(law for law in answer.json["laws"] if law["law"] == name)


def test_an_undisturbed_build_is_whole(settled):
    before = without_cache(settled)
    answer = ask(settled, "verify", "--json")
    assert answer.exit_code == 0
    found = answer.json
    assert (found["format"], found["ok"], found["corrupt"]) == (1, True, [])
    assert [(entry["law"], entry["ok"], entry["detail"]) for entry in found["laws"]] == [
        (name, True, "") for name in LAWS
    ]
    files = {p for m in settled.manifests().values() for p in (m.ledger.path, *(o.path for o in m.outputs))}
    assert found["files"] >= len(files)
    assert found["bytes"] > 100_000
    assert without_cache(settled) == before
    assert "law rows: holds" in ask(settled, "verify").out


@pytest.mark.parametrize(
    "pattern",
    [
        "data/download.fetch/*/images-*.tar", "data/dedup.cluster/all/clusters-*.parquet",
        "ledger/filter.pool/*.parquet", "release/train/*.tar",
        "release/metafile/samples.parquet", "release/checksums.sha256",
    ],
)  # fmt: skip
def test_a_flipped_byte_is_named_set_aside_and_made_again(settled, reference, pattern):
    path = min(settled.path.glob(pattern))
    name = str(path.relative_to(settled.path))
    flip(path)
    answer = ask(settled, "verify", "--json")
    assert answer.exit_code == 4
    assert answer.json["ok"] is False
    assert [entry["path"] for entry in answer.json["corrupt"]] == [name]
    assert answer.json["corrupt"][0]["detail"].startswith("has sha256 ")
    assert {entry["ok"] for entry in answer.json["laws"]} == {None}
    assert not path.exists()
    assert path.with_name(path.name + ".corrupt").exists()
    assert settled.run().exit_code == 0
    assert settled.snapshot().release.items() >= reference.release.items()
    assert ask(settled, "verify").exit_code == 0


def test_for_people(settled):
    path = min(settled.path.glob("data/dedup.inspect/*/*.parquet"))
    replace(path, path.read_bytes()[:-7])
    answer = ask(settled, "verify")
    assert answer.exit_code == 4
    assert f"CORRUPTED {path.relative_to(settled.path)}: has " in answer.out
    assert "`rs5m-build run` makes the files again" in answer.out


def test_a_missing_file_is_corrupt_too(settled):
    path = min(settled.path.glob("data/shard.plan/all/plan-*.parquet"))
    path.unlink()
    (corrupt,) = ask(settled, "verify", "--json").json["corrupt"]
    assert corrupt == {"path": str(path.relative_to(settled.path)), "detail": "is gone"}


def test_an_unreadable_commit_is_set_aside(settled):
    path = min(settled.path.glob("commits/dedup.inspect/*.json"))
    replace(path, b"{}")
    answer = ask(settled, "status")
    assert answer.exit_code == 2
    assert "is no manifest of this format" in answer.err
    answer = ask(settled, "verify", "--json")
    assert answer.exit_code == 4
    assert [entry["path"] for entry in answer.json["corrupt"]] == [str(path.relative_to(settled.path))]
    assert not path.exists()
    assert settled.run().exit_code == 0
    assert ask(settled, "verify").exit_code == 0


def edit(path, change):
    manifest = json.loads(path.read_bytes())
    change(manifest)
    replace(path, json.dumps(manifest).encode())


def test_books_that_are_not_the_ledgers(settled):
    def change(manifest):
        manifest["rows"]["cc3m"]["dropped"] = {"dedup.same_bytes": sum(manifest["rows"]["cc3m"]["dropped"].values())}

    edit(next((settled.path / "commits/dedup.cluster").iterdir()), change)
    answer = ask(settled, "verify", "--json")
    assert answer.exit_code == 4
    assert law(answer, "ledger_closes") == {
        "law": "ledger_closes", "ok": False,
        "detail": "dedup.cluster/all, cc3m: the ledger lists other rows than the books count",
    }  # fmt: skip
    assert law(answer, "rows")["ok"] is True
    assert (settled.path / "data/dedup.cluster").exists()


def test_a_row_that_disappeared(settled):
    """Kept rows of one commit are swapped for another's: every digest agrees, the rows do not."""
    one, two = sorted((settled.path / "commits/dedup.inspect").iterdir())[:2]
    other = json.loads(two.read_bytes())["outputs"]
    edit(one, lambda manifest: manifest.update(outputs=other))
    answer = ask(settled, "verify", "--json")
    assert answer.exit_code == 4
    assert law(answer, "rows")["detail"].startswith("dedup.inspect/")
    assert "BROKEN" in ask(settled, "verify").out


def test_a_stray_file_in_the_release(settled):
    (settled.path / "release/train/extra.tar").write_bytes(b"")
    broken = law(ask(settled, "verify", "--json"), "release_checksums")
    assert (broken["ok"], broken["detail"]) == (False, "release/train/extra.tar is not listed in checksums.sha256")


def test_an_unfinished_build(fresh):
    fresh.run(until="dedup")
    answer = ask(fresh, "verify", "--json")
    assert answer.exit_code == 0
    assert law(answer, "rows")["ok"] is True
    assert law(answer, "release_tars") == {
        "law": "release_tars", "ok": None, "detail": "not checked: the release is not complete",
    }  # fmt: skip


def test_never_beside_a_run(settled):
    with Lock(Store(str(settled.path)), "run", 0.02, lambda _: None):
        answer = ask(settled, "verify")
    assert answer.exit_code == 2
    assert "in use" in answer.err


def test_no_workdir(tmp_path):
    answer = ask(Workdir(tmp_path / "none"), "verify")
    assert answer.exit_code == 2
    assert "is no workdir" in answer.err
