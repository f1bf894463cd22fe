"""A corrupted file is set aside by whoever finds it first; another driver's repair is never undone."""

from manifests.commits import CommitStore
from manifests.store import Store
from pipeline.repair import set_aside


def inspected(workdir):
    """Return the path of a table below the workdir."""
    file = next((workdir.path / "data/dedup.inspect").glob("*/*.parquet"))
    return file.relative_to(workdir.path).as_posix()


def test_a_file_is_renamed_and_its_commit_removed(settled):
    path, store = inspected(settled), Store(str(settled.path))
    store.replace(path, store.read(path)[:-1])
    repaired = set_aside(store, CommitStore(store), [path])
    assert [len(removed) for removed in repaired.removed.values()] == [1]
    assert store.size(path) is None
    assert store.size(f"{path}.corrupt")
    assert all(store.size(commit) is None for commit in repaired.removed[path])


def test_a_file_that_is_as_recorded_is_left_alone(settled):
    path, store = inspected(settled), Store(str(settled.path))
    before = sorted(e.path for e in store.find("commits"))
    repaired = set_aside(store, CommitStore(store), [path])
    assert (repaired.removed, repaired.healthy) == ({}, {path})
    assert store.size(path)
    assert sorted(e.path for e in store.find("commits")) == before


def test_what_another_driver_set_aside_already_is_no_error(settled):
    path, store = inspected(settled), Store(str(settled.path))
    store.replace(path, b"damaged")
    first, second = CommitStore(store), CommitStore(store)
    listed = {step: second.step(step) for step in second.steps()}
    second.step = listed.__getitem__  # as a listing that lags behind shows it
    assert set_aside(store, first, [path]).removed[path]
    assert set_aside(store, second, [path]).removed == {path: []}


def test_several_files_are_found_in_one_look_at_the_commits(settled, monkeypatch):
    store = Store(str(settled.path))
    files = [f.relative_to(settled.path).as_posix() for f in (settled.path / "data/dedup.inspect").glob("*/*.parquet")]
    for path in files:
        store.replace(path, b"damaged")
    commits, read = CommitStore(store), []
    original = store.read
    monkeypatch.setattr(store, "read", lambda path: read.append(path) or original(path))
    repaired = set_aside(store, commits, files)
    assert sorted(repaired.removed) == sorted(files)
    manifests = [path for path in read if path.startswith("commits/")]
    assert len(manifests) == len(set(manifests))


def test_a_commit_that_another_process_made_anew_is_read_anew(settled):
    path, store = inspected(settled), Store(str(settled.path))
    commits, other = CommitStore(store), CommitStore(store)
    name = next(n for n in commits.step("dedup.inspect").all() if n.partition in path)
    manifest = commits.read(name)
    other.remove(name)
    made = manifest.model_copy(update={"facts": {"made": "anew"}})
    other.commit(made, name.number)
    listed = commits.step("dedup.inspect")
    assert commits.read(name).facts == {"made": "anew"}
    assert len(commits.records(listed)) == len(listed.files)
