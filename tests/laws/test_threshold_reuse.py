"""A changed setting recomputes what depends on it: no url is asked and no image decoded a second time."""

import shutil

import polars as pl
import pytest

from manifests.lexicon import load_lexicon, make_lexicon

_SHARD = {"shard.plan", "shard.pack", "shard.index"}
_STRICT = ("dedup.radius=0", "dedup.confirm_noise=0.0", "dedup.confirm_correlation=1.0")
# Urls that are recorded without a request to the world's server: no such name, nobody listens.
_UNHEARD = ("http://nowhere.", "http://refuses.")


def _worked(ended, workdir):
    """Return which steps committed something in the newest run."""
    assert ended.exit_code == 0
    newest = max((workdir.path / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    lines = (newest / "events.jsonl").read_text().splitlines()
    return {line.split('"step": "')[1].split('"')[0] for line in lines if '"event": "partition_done"' in line}


def test_other_cuts_fetch_and_decode_nothing(settled, asked):
    ended = settled.run(*_STRICT)
    assert not asked
    assert _worked(ended, settled) == {"dedup.cluster", "outlier.embed", "outlier.cut", "geo.locate", *_SHARD}
    assert settled.facts("dedup.inspect", "decoded_images", *_STRICT) == settled.facts(
        "dedup.inspect", "decoded_images"
    )
    dropped = [c.dropped for c in settled.manifests(*_STRICT)["dedup.cluster/all"].rows.values()]
    assert not any("dedup.near_duplicate" in reasons for reasons in dropped)


def test_a_cut_that_changes_no_row_stops_there(settled, reference, asked):
    """The same rows come out under a smaller radius, so nothing behind them is made again."""
    ended = settled.run("dedup.radius=3")
    assert not asked
    assert _worked(ended, settled) == {"dedup.cluster"}
    assert settled.snapshot("dedup.radius=3").release == reference.release


def test_an_image_that_was_scored_is_never_scored_again(settled):
    before = settled.table("outlier.embed", "scores")
    known = set(before["sha256"])
    settled.run(*_STRICT)
    after = settled.table("outlier.embed", "scores", *_STRICT)
    new = set(after["sha256"]) - known
    assert new
    manifests = settled.manifests()
    redone = {
        key: m
        for key, m in settled.manifests(*_STRICT).items()
        if key.startswith("outlier.embed/") and m.fingerprint != manifests[key].fingerprint
    }
    assert sum(int(str(m.facts["scored_images"])) for m in redone.values()) == len(new)
    both = before.join(after, on="sha256", suffix="_again")
    assert both["vlm"].to_list() == both["vlm_again"].to_list()


@pytest.mark.parametrize("cut", ["outlier.vlm.keep_top=0.5", "outlier.detector_cut.at_least=0.52"])
def test_another_threshold_touches_no_model(settled, monkeypatch, cut):
    def no_encoder(*arguments):
        raise AssertionError(f"a model was loaded: {arguments}")

    monkeypatch.setattr("stages.outlier.embed.load_encoder", no_encoder)
    monkeypatch.setattr("stages.caption.generate.load_encoder", no_encoder, raising=False)
    ended = settled.run(cut)
    assert _worked(ended, settled) <= {"outlier.cut", "geo.locate", *_SHARD}
    assert _worked(ended, settled) >= {"outlier.cut", "shard.plan"}


def test_parts_of_an_archive_that_are_cut_anew_are_not_scored_or_captioned_again(settled, reference):
    parts = "filter.archive_rows=2"
    assert settled.run(parts).exit_code == 0
    assert sum(key.startswith("outlier.embed/fmow-") for key in settled.manifests(parts)) == 3
    assert settled.facts("outlier.embed", "scored_images", parts, partitions="fmow-") == 0
    assert settled.facts("caption.generate", "captioned_images", parts, partitions="fmow-") == 0
    assert settled.snapshot(parts).release == reference.release


def test_back_to_the_old_settings_only_the_release_is_written_again(settled, reference, asked):
    settled.run(*_STRICT)
    ended = settled.run()
    assert not asked
    assert _worked(ended, settled) == {"shard.pack", "shard.index"}
    assert settled.snapshot() == reference


def test_how_the_web_is_asked_is_no_reason_to_ask_again(settled, asked):
    ended = settled.run("download.network.per_host=1", "download.network.attempts=5", 'download.contact="x@y.org"')
    assert not ended.had_work
    assert not asked


@pytest.mark.parametrize("spread", ["filter.buckets=5", "filter.host_cap=1"])
def test_another_spread_fetches_and_decodes_nothing_again(settled, reference, asked, spread):
    assert settled.run(spread).exit_code == 0
    assert not asked
    assert settled.facts("download.fetch", "fetched_urls", spread, partitions="web-") == 0
    assert settled.facts("dedup.inspect", "decoded_images", spread, partitions="web-") == 0
    assert settled.facts("outlier.embed", "scored_images", spread, partitions="web-") == 0
    assert settled.snapshot(spread).release == reference.release


def test_another_source_fetches_only_its_own_urls(fresh, reference, asked):
    without = "sources.laioncoco.enabled=false"
    assert fresh.run(without).exit_code == 0
    before = set(asked)
    asked.clear()
    assert fresh.run().exit_code == 0
    candidates = fresh.table("filter.pool", "candidates")
    new = set(candidates.filter(pl.col("source") == "laioncoco")["url"])
    old = set(candidates.filter(pl.col("source") != "laioncoco")["url"])
    assert _heard(new - old) <= set(asked)
    assert not set(asked) & (before | old)
    assert fresh.snapshot().release == reference.release


def test_a_new_keyword_fetches_only_new_urls(fresh, asked, monkeypatch):
    known = load_lexicon("rs5m-1")
    fewer = make_lexicon("rs5m-1", tuple(s for s in known.stems if s != "satellite imag"), known.names)
    with monkeypatch.context() as patched:
        patched.setattr("stages.filter.match.load_lexicon", lambda _: fewer)
        assert fresh.run().exit_code == 0
        before, old = set(asked), set(fresh.table("filter.pool", "candidates")["url"])
    asked.clear()
    assert fresh.run().exit_code == 0
    new = set(fresh.table("filter.pool", "candidates")["url"]) - old
    assert new
    assert _heard(new) <= set(asked)
    assert not set(asked) & (before | old)


def test_a_higher_size_limit_asks_only_for_what_was_too_large(fresh, reference, asked):
    small = "download.max_bytes=6000"
    assert fresh.run(small).exit_code == 0
    too_large = _urls_left(fresh, "download.too_large", small)
    assert too_large
    asked.clear()
    assert fresh.run().exit_code == 0
    assert set(asked) == too_large
    assert fresh.snapshot().release == reference.release
    asked.clear()
    assert fresh.run(small).exit_code == 0
    assert not asked


def test_a_lower_size_limit_is_judged_from_the_record(settled, fresh, asked):
    small = "download.max_bytes=6000"
    assert settled.run(small).exit_code == 0
    assert not asked
    assert fresh.run(small).exit_code == 0
    judged, fetched = (_urls_left(w, "download.too_large", small) for w in (settled, fresh))
    assert judged == {url for url in fetched if "drip" not in url}  # recorded as too slow, it stays so
    assert settled.snapshot(small).release == fresh.snapshot(small).release


def test_only_a_decode_setting_decodes_again(settled, asked):
    assert settled.run("dedup.max_pixels=15000").exit_code == 0
    assert not asked
    assert settled.facts("dedup.inspect", "decoded_images", "dedup.max_pixels=15000") > 0


def test_without_commits_the_rows_are_taken_over_from_nothing(settled, reference, asked):
    """Files alone prove nothing: only a commit says that a url was asked."""
    shutil.rmtree(settled.path / "commits/download.fetch")
    assert settled.run().exit_code == 0
    assert asked
    assert settled.snapshot() == reference


def _heard(urls):
    return {url for url in urls if not url.startswith(_UNHEARD)}


def _urls_left(workdir, reason, *overrides):
    found = set()
    for key, manifest in workdir.manifests(*overrides).items():
        if key.startswith("download.fetch/"):
            ledger = pl.read_parquet(workdir.path / manifest.ledger.path)
            found |= set(ledger.filter(pl.col("reason") == reason)["url"])
    return found
