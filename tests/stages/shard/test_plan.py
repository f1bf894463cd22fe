import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.store import Store
from stages.exclusions import planned_lists
from stages.shard.plan import Plan
from tests.stages.handing import Handed, perform, rows_of


def plan(
    groups,
    media="jpeg",
    tars=2,
    seed=2023,
    val_fraction=0.3,
    places=(),
    scores=(),
    captions=(),
    changed=None,
    lists=None,
    redirects=None,
    fetched=None,
    **candidate,
):
    """Plan samples, given as sample id to split group; ``lists``: entries by kind, ``redirects``: id to final url."""
    fetched = fetched or [
        {"sample_id": key, "tar": "i.tar", "offset": 512, "length": 9, "sha256": f"sha-{key}", "media_type": media,
         "final_url": (redirects or {}).get(key)}
        for key in groups
    ]  # fmt: skip
    candidates = [
        {"sample_id": key, "source": "cc3m", "subset": "pub11", "url": f"http://a.org/{key}", "text": f"about {key}",
         "matched": ["aerial view"], **candidate}
        for key in (*groups, "dropped long ago")
    ]  # fmt: skip
    inspected = [{"sample_id": key, "width": 40, "height": 30, "phash": 2**64 - 1} for key in groups]
    source = candidate.get("source", "cc3m")
    survivors = [{"sample_id": key, "source": source, "split_group": group} for key, group in groups.items()]
    web = candidate.get("subset", "pub11") == "pub11"
    store = Store("memory://plan")
    tables = Handed(store, {
        ("outlier.cut", "survivors"): rows_of("survivors", *(survivors if web else ())),
        ("caption.generate", "survivors"): rows_of("survivors", *(() if web else survivors)),
        ("outlier.embed", "scores"): rows_of("scores", *scores),
        ("caption.choose", "captions"): rows_of("captions", *captions),
        ("geo.locate", "places"): rows_of("places", *places),
        ("download.fetch", "fetched"): rows_of("fetched", *fetched),
        ("filter.pool", "candidates"): rows_of("candidates", *candidates),
        ("dedup.inspect", "inspected"): rows_of("inspected", *inspected),
    })  # fmt: skip
    settings = {"seed": seed, "shard.tars_per_split": tars, "shard.val_fraction": val_fraction, **(changed or {})}
    for kind, entries in (lists or {}).items():
        store.replace(kind, "\n".join(entries).encode())
    settings |= planned_lists(store, {f"exclude.{kind}": kind for kind in lists or {}})
    return perform(Plan(), tables, settings)


def tar_of(done):
    return dict(done.table("plan").select("sample_id", "tar").rows())


def alone(count):
    return {f"{n:04d}": f"group {n}" for n in range(count)}


GROUPS = st.dictionaries(st.text("0123456789abcdef", min_size=1, max_size=4), st.sampled_from("tuvwxyz"), max_size=12)


@given(GROUPS, GROUPS, st.integers(1, 4))
def test_a_place_is_drawn_by_group_alone_and_stays_when_rows_are_added(groups, added, tars):
    before = tar_of(plan(groups, tars=tars))
    after = tar_of(plan(added | groups, tars=tars))
    assert {key: after[key] for key in groups} == before
    of_group = {}
    for key, group in (added | groups).items():
        of_group.setdefault(group, set()).add(after[key])
    assert all(len(found) == 1 for found in of_group.values())


@given(GROUPS)
def test_positions_follow_the_ids(groups):
    done = plan(groups)
    placed = tar_of(done)
    for tar, frame in done.parts("plan").items():
        assert frame["sample_id"].to_list() == sorted(key for key in groups if placed[key] == tar)
        assert frame["position"].to_list() == list(range(frame.height))


def test_every_tar_is_planned_even_if_empty():
    names = [f"pub11-{split}-{n:04d}" for split in ("train", "val") for n in range(3)]
    done = plan({"a": "g"}, tars=3)
    assert sorted(done.parts("plan")) == names
    assert sorted(part.height for part in done.parts("plan").values()) == [0, 0, 0, 0, 0, 1]
    nothing = plan({}, tars=3)
    assert {name: part.height for name, part in nothing.parts("plan").items()} == dict.fromkeys(names, 0)
    assert nothing.table("samples").is_empty()
    assert nothing.books == {}


@pytest.mark.parametrize(("val_fraction", "splits"), [(0.0, {"train"}), (1.0, {"val"}), (0.5, {"train", "val"})])
def test_the_share_of_val(val_fraction, splits):
    done = plan(alone(40), val_fraction=val_fraction)
    assert set(done.table("samples")["split"]) == splits
    assert all(tar.split("-")[1] in splits for tar in tar_of(done).values())


def test_the_share_of_val_is_about_what_was_asked_for():
    share = plan(alone(1000), val_fraction=0.3).table("samples").filter(pl.col("split") == "val").height / 1000
    assert 0.25 < share < 0.35


def test_a_larger_share_moves_rows_to_val_only():
    small, large = (plan(alone(100), val_fraction=v).table("samples") for v in (0.2, 0.4))
    val = [set(frame.filter(pl.col("split") == "val")["sample_id"]) for frame in (small, large)]
    assert val[0] < val[1]


def test_another_seed_draws_another_split():
    assert tar_of(plan(alone(100))) == tar_of(plan(alone(100), seed=2023))
    assert tar_of(plan(alone(100))) != tar_of(plan(alone(100), seed=1))


def test_groups_spread_over_the_tars():
    done = plan(alone(200), tars=4)
    assert all(part.height for part in done.parts("plan").values())


@pytest.mark.parametrize(
    ("media", "extension"),
    [("jpeg", "jpg"), ("png", "png"), ("webp", "webp"), ("gif", "gif"), ("bmp", "bmp"), ("tiff", "tif")],
)
def test_the_name_of_an_image_says_its_source(media, extension):
    assert plan({"00ff": "g"}, media).row("plan", "00ff")["img_name"] == f"cc3m_00ff.{extension}"


def test_a_planned_row():
    done = plan({"00ff": "g"}, tars=1, val_fraction=0.0)
    assert done.row("plan", "00ff") == {
        "tar": "pub11-train-0000", "position": 0, "sample_id": "00ff", "source": "cc3m", "img_name": "cc3m_00ff.jpg",
        "caption": "about 00ff", "image_tar": "i.tar", "offset": 512, "length": 9, "sha256": "sha-00ff",
    }  # fmt: skip


def test_a_row_of_samples_names_what_is_known_and_leaves_the_rest_open():
    places = [{"sample_id": "00ff", "lon": 2.5, "lat": -7.0, "utm": "31L", "month": 6, "season": "winter"}]
    scores = [{"sample_id": "00ff", "vlm": 0.25, "detector": 0.5}]
    done = plan({"00ff": "g"}, tars=1, val_fraction=0.0, places=places, scores=scores, licence="CC0", credit="Ann")
    known = {name: value for name, value in done.row("samples", "00ff").items() if value is not None}
    assert known == {
        "img_name": "cc3m_00ff.jpg", "caption": "about 00ff", "sample_id": "00ff", "source": "cc3m", "subset": "pub11",
        "split": "train", "tar": "pub11-train-0000", "url": "http://a.org/00ff", "sha256": "sha-00ff", "width": 40,
        "height": 30, "phash": 2**64 - 1, "matched": ["aerial view"], "vlm": 0.25, "detector": 0.5,
        "lon": 2.5, "lat": -7.0, "utm": "31L", "month": 6, "season": "winter", "licence": "CC0", "credit": "Ann",
        "split_group": "g",
    }  # fmt: skip


ARCHIVE = {"source": "fmow", "subset": "rs3", "text": "", "url": "fmow:train/port/port_1/port_1_0_rgb.jpg"}
CAPTION = {"sample_id": "a", "top": "the top", "ssl": "the ssl", "chosen": "the chosen", "rule": "top"}


def archived(meta="A meta caption.", **more):
    places = [{"sample_id": "a", "meta": meta}]
    return plan({"a": "fmow:g"}, tars=1, val_fraction=0.0, places=places, captions=[CAPTION], **(ARCHIVE | more))


def test_an_image_of_an_archive_keeps_its_official_name_and_stands_in_its_subsets_tars():
    row = archived().row("plan", "a")
    assert (row["img_name"], row["tar"]) == ("fmow_port_1_0_rgb.jpg", "rs3-train-0000")
    patch = archived(source="ben", url="ben:S2A_MSIL2A_20170617T113321_36_85").row("plan", "a")
    assert patch["img_name"] == "ben_S2A_MSIL2A_20170617T113321_36_85.jpg"


def test_only_subsets_that_there_are_have_tars():
    assert {tar.split("-")[0] for tar in archived().parts("plan")} == {"rs3"}
    assert {tar.split("-")[0] for tar in plan({"a": "g"}).parts("plan")} == {"pub11"}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["meta", "chosen"], "A meta caption. the chosen"),
        (["chosen", "meta"], "the chosen A meta caption."),
        (["ssl"], "the ssl"),
        (["text", "top"], "the top"),
    ],
)
def test_the_recipe_says_what_the_released_text_is_made_of(parts, text):
    assert archived(changed={"shard.caption": {"fmow": parts, "*": ["text"]}}).row("plan", "a")["caption"] == text


def test_a_part_that_is_missing_is_left_out_of_the_text():
    assert archived(meta=None).row("plan", "a")["caption"] == "the chosen"


@pytest.mark.parametrize("parts", [{}, {"fmow": ["meta"]}, {"fmow": []}])
def test_no_pair_is_without_a_text(parts):
    assert archived(meta=None, changed={"shard.caption": parts}).row("plan", "a")["caption"] == "the chosen"


@pytest.mark.parametrize("words", ["", "  "])
def test_an_image_without_any_words_is_not_released(words):
    done = plan({"a": "g", "b": "h"}, text=words)
    assert done.table("plan").is_empty()
    assert [row["reason"] for row in done.left().values()] == ["shard.no_caption"] * 2


def test_images_of_another_split_do_not_share_their_names():
    val = archived(url="fmow:val/port/port_1/port_1_0_rgb.jpg").row("plan", "a")["img_name"]
    assert val == "fmow_val_port_1_0_rgb.jpg"


IDS = [f"{n:032x}" for n in range(5)]


@pytest.mark.parametrize(
    ("lists", "redirects", "gone", "detail"),
    [
        ({"ids": [IDS[1]]}, {}, {IDS[1]}, "exclude.ids"),
        ({"ids": [f"cc3m_{IDS[1]}.jpg", f"cc12m_{IDS[2]}.jpg"]}, {}, {IDS[1]}, "exclude.ids"),
        ({"urls": [f"http://a.org/{IDS[2]}"]}, {}, {IDS[2]}, "exclude.urls"),
        ({"urls": ["http://b.org/x"]}, {IDS[3]: "http://b.org/x"}, {IDS[3]}, "exclude.urls"),
        ({"hosts": ["b.org"]}, {IDS[3]: "http://img.B.org/x"}, {IDS[3]}, "exclude.hosts: b.org"),
        ({"hosts": ["a.org"]}, {}, set(IDS), "exclude.hosts: a.org"),
        ({"ids": [], "hosts": ["b.org"]}, {}, set(), ""),
    ],
)
def test_what_a_list_names_is_not_released(lists, redirects, gone, detail):
    groups = dict.fromkeys(IDS, "g")
    done = plan(groups, tars=1, lists=lists, redirects=redirects)
    assert set(done.table("plan")["sample_id"]) == set(done.table("samples")["sample_id"]) == set(IDS) - gone
    assert done.table("plan")["position"].to_list() == list(range(len(IDS) - len(gone)))
    assert set(done.left()) == gone
    for key, left in done.left().items():
        assert left == {
            "step": "shard.plan", "source": "cc3m", "sample_id": key, "sha256": f"sha-{key}",
            "reason": "shard.excluded", "class": "dropped", "detail": detail,
        }  # fmt: skip
    assert done.books["cc3m"].kept == len(IDS) - len(gone)


def test_bytes_that_a_list_names_are_not_released_whichever_samples_have_them():
    digests = {key: ("ab" if n < 2 else "cd") * 32 for n, key in enumerate(IDS)}
    fetched = [{"sample_id": key, "tar": "i.tar", "sha256": digest} for key, digest in digests.items()]
    fetched = [row | {"media_type": "jpeg", "length": 9} for row in fetched]
    done = plan(dict.fromkeys(IDS, "g"), lists={"sha256": ["AB" * 32]}, fetched=fetched)
    assert {key: left["detail"] for key, left in done.left().items()} == dict.fromkeys(IDS[:2], "exclude.sha256")
    assert set(done.table("plan")["sample_id"]) == set(IDS[2:])


def test_an_image_of_an_archive_is_named_by_its_released_name():
    name = archived().row("plan", "a")["img_name"]
    done = archived(lists={"ids": [name]})
    assert done.reasons() == {"a": "shard.excluded"}
    assert {frame.height for frame in done.parts("plan").values()} == {0}
    assert archived(lists={"ids": [f"x{name}"]}).reasons() == {}


@given(GROUPS, st.data())
def test_a_takedown_changes_only_the_tars_it_takes_from(groups, data):
    before = plan(groups)
    gone = data.draw(st.sets(st.sampled_from(sorted(groups)))) if groups else set()
    after = plan(groups, lists={"urls": [f"http://a.org/{key}" for key in gone]})
    touched = {tar_of(before)[key] for key in gone}
    assert set(after.parts("plan")) == set(before.parts("plan"))
    for tar, frame in before.parts("plan").items():
        left = frame.filter(~pl.col("sample_id").is_in(list(gone))).drop("position")
        assert after.parts("plan")[tar].drop("position").equals(left)
        assert after.parts("plan")[tar].equals(frame) == (tar not in touched)
