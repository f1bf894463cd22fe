import base64
import hashlib
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image

from manifests.manifest import Manifest
from manifests.schemas import TABLES
from manifests.tables import write_table
from pipeline.page.style import STYLE
from pipeline.report_text import TITLES, WHEN_NOT_ZERO
from tests.pipeline.page.page_reading import cycled, read_page, rewrite
from tests.pipeline.read_commands import ask

EVIL = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>' onload='alert(2)",
    "a \u202e evil \u2066 b \u200b\x00\x1b[2J\x07 \ufeff",
    "x" * 5000,
    "</style></figcaption><base href=//evil.test><iframe srcdoc='a'>",
    "&lt;b&gt; &amp;#60; javascript:alert(1)",
    "<!-- -- > <svg/onload=alert(1)> ]]>",
]
URLS = [
    "javascript:alert(1)",
    'http://a.test/"onmouseover="alert(1)',
    "https://a.test/<script>",
    "http://a.test/\u202egpj.exe",
    "data:text/html,<script>alert(1)</script>",
    "http://a.test/" + "y" * 3000,
    "HTTP://A.test/a b",
]
ALLOWED = {
    "html": {"lang"}, "head": set(), "title": set(), "style": set(), "body": set(), "header": set(), "main": set(),
    "meta": {"charset", "http-equiv", "content", "name"}, "nav": {"aria-label"}, "ul": {"class"}, "li": set(),
    "a": {"href", "rel"}, "h1": set(), "h2": {"id"}, "h3": set(), "p": {"class"}, "span": {"class"}, "bdi": {"class"},
    "section": {"aria-labelledby"}, "div": {"class", "role", "aria-label", "tabindex"}, "table": {"id"},
    "caption": set(), "thead": set(), "tbody": set(), "tr": {"class"}, "th": {"scope"}, "td": {"class"},
    "small": set(), "figure": {"class"}, "figcaption": set(), "strong": set(), "code": set(), "details": set(),
    "summary": set(), "img": {"src", "alt", "width", "height", "loading"},
}  # fmt: skip


def write(workdir, folder, *settings):
    answer = ask(workdir, "report", *settings, "--html", str(folder))
    assert (answer.exit_code, answer.err) == (0, "")
    assert answer.out == f"{folder}/index.html\n"
    return read_page(folder)


def is_safe(page, folder):
    """Check that nothing on a page runs, or comes from elsewhere, and that its pictures are there."""
    assert page.open == []
    for tag, attributes in page.tags:
        assert set(attributes) <= ALLOWED[tag], (tag, attributes)
    for attributes in page.named("a"):
        if attributes["href"].startswith("#"):
            assert attributes["href"][1:] in {h2["id"] for h2 in page.named("h2")}
        else:
            assert re.fullmatch(r"https?://[!-~]+", attributes["href"], re.IGNORECASE)
            assert set(attributes["rel"].split()) == {"noopener", "noreferrer", "nofollow"}
    for image in page.images:
        assert re.fullmatch(r"img/[0-9a-f]{16}\.jpg", image["src"])
        with Image.open(folder / image["src"]) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
            assert max(picture.size) <= 160
            assert set(picture.info) <= {"jfif", "jfif_version", "jfif_density", "jfif_unit"}
        assert image["loading"] == "lazy"
        assert image["alt"]
    assert page.text.replace("\n", "").isprintable()
    assert {path.name for path in (folder / "img").iterdir()} == {image["src"][4:] for image in page.images}
    (policy,) = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src 'self'", f"style-src 'sha256-{style}'"]
    assert f"<style>{STYLE}</style>" in page.source


@pytest.fixture(scope="module")
def written(built, tmp_path_factory):
    """The page of an undisturbed build, and its folder."""
    folder = tmp_path_factory.mktemp("page") / "a" / "page"
    return write(built, folder), folder


def test_the_page_is_safe_and_has_its_sections(written):
    page, folder = written
    is_safe(page, folder)
    assert [h2["id"] for h2 in page.named("h2")] == [
        "funnel", "reasons-why", "sources", "clusters", "inside", "outside", "disagreed", "about",
    ]  # fmt: skip
    assert "Complete." in page.text
    assert "RS3 is not deduplicated" in page.text
    assert page.images


def test_the_numbers_are_those_of_the_report(built, written):
    page, _ = written
    report = ask(built, "report", "--json").json
    for subset, funnel in report["funnel"].items():
        columns = [c for c in TITLES if c not in WHEN_NOT_ZERO or funnel["total"][c]]
        lines = [*funnel["rows"], {"name": "total", **funnel["total"]}]
        head, *rows = page.tables[f"funnel-{subset}"]
        assert head == ["source", *(TITLES[c] for c in columns)]
        assert rows == [[r["name"], *("-" if r[c] is None else f"{r[c]:,}" for c in columns)] for r in lines]
    left = {}
    for line in report["steps"]:
        for reason, rows in {**line["dropped"], **line["failed"], **line["deferred"]}.items():
            left[reason] = left.get(reason, 0) + rows
    assert {row[0]: int(row[2].replace(",", "")) for row in page.tables["reasons"][1:]} == left
    for row in page.tables["reasons"][1:]:
        assert sum(int(cell.replace(",", "")) for cell in row[3:]) == left[row[0]]


def test_the_overlap_adds_up_to_the_duplicates(built, written):
    page, _ = written
    funnel = ask(built, "report", "--json").json["funnel"]["pub11"]
    duplicates = {row["name"]: row["duplicate"] for row in funnel["rows"]}
    head, *rows, last = page.tables["overlap"]
    assert [row[0] for row in rows] == head[1:-2] == list(duplicates)
    counts = np.array([[int(cell.split()[0].replace(",", "")) for cell in row[1:]] for row in rows])
    assert dict(zip(duplicates, counts[:, -2].tolist(), strict=True)) == duplicates
    assert (counts[:, :-2].sum(axis=1) == counts[:, -2]).all()
    assert [int(cell.replace(",", "")) for cell in last[1:]] == counts.sum(axis=0).tolist()
    assert int(last[-2]) == funnel["total"]["duplicate"] > 0
    clusters, inspected = (
        built.table(*name) for name in (("dedup.cluster", "clusters"), ("dedup.inspect", "inspected"))
    )
    source = built.table("filter.pool", "candidates").select("sample_id", "source")
    pairs = (
        clusters.filter(pl.col("sample_id") != pl.col("cluster_id"))
        .join(source, on="sample_id")
        .join(source, left_on="cluster_id", right_on="sample_id", suffix="_kept")
    )
    names = {row["source"]: row["name"] for row in funnel["rows"]}
    for (lost, kept), rows_of in pairs.group_by("source", "source_kept"):
        cell = rows[head[1:].index(names[lost])][head.index(names[kept])]
        seen = inspected.join(source.filter(pl.col("source") == lost), on="sample_id").height
        assert cell == f"{len(rows_of)} {len(rows_of) / seen:.1%}"


def test_clusters_show_leader_members_and_proofs(built, written):
    page, _ = written
    clusters = built.table("dedup.cluster", "clusters")
    sizes = clusters.group_by("cluster_id").len().sort("len", "cluster_id", descending=[True, False])
    first, size = sizes.row(0)
    assert f"1. {size:,} rows of one picture" in page.text
    at = page.source.index(f"<code>{first}</code>")
    assert "<span>stays</span>" in page.source[at - 1500 : at]
    for identity in clusters.filter(pl.col("cluster_id") == first)["sample_id"]:
        assert identity in page.source
    near = clusters.filter(pl.col("proof") == "near").sort("distance", "confirm", descending=True).row(0, named=True)
    unit = "bit" if near["distance"] == 1 else "bits"
    words = f"{near['distance']} {unit} apart, radius 4; thumbnails differ by {near['confirm']:.4g} levels, limit "
    inside = page.source[page.source.index('id="inside"') : page.source.index('id="outside"')]
    assert re.search(r"<li><p>(.*?)</p>", inside)[1].startswith(words)


def test_equal_builds_give_equal_pages(built, written, tmp_path):
    _, folder = written
    write(built, tmp_path / "again")
    write(built, tmp_path / "again")
    pages = [{str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*.*")} for f in (folder, tmp_path / "again")]
    assert pages[0] == pages[1]


@pytest.fixture(scope="module")
def hostile(built, tmp_path_factory):
    """A build of hostile captions and urls."""
    workdir = built.copy(tmp_path_factory.mktemp("hostile") / "work")
    rewrite(workdir, "filter.pool", "candidates", lambda f: f.with_columns(cycled("text", EVIL), cycled("url", URLS)))
    return workdir


def test_strangers_words_stay_words(hostile, tmp_path):
    page = write(hostile, tmp_path / "page")
    is_safe(page, tmp_path / "page")
    assert "<script>alert(1)</script>" in page.words
    assert any(words.startswith("x" * 199) and len(words) == 200 for words in page.words)
    assert "a \\u202e evil \\u2066 b \\u200b\\x00\\x1b[2J\\x07 \\ufeff" in page.words
    assert "javascript:alert(1)" in page.words
    hrefs = {a["href"] for a in page.named("a") if not a["href"].startswith("#")}
    assert hrefs == {'http://a.test/"onmouseover="alert(1)', "https://a.test/<script>"}


def test_evaluation_images_are_shown_by_their_names(settled, tmp_path):
    clusters = settled.table("dedup.cluster", "clusters")
    inspected = settled.table("dedup.inspect", "inspected").filter(pl.col("texture") > 20).unique("phash")
    leads = pl.col("sample_id").is_in(clusters["cluster_id"].to_list())  # their copies have left for rows that leave
    taken = inspected.sort(~leads, "sample_id").head(len(EVIL)).with_columns(cycled("item", EVIL))
    assert taken.filter(leads).height > 1
    table = TABLES["hash_list"]
    write_table(table, taken.select(table.schema.names), tmp_path / "list.parquet")
    setting = f'dedup.benchmarks=["b={tmp_path}/list.parquet"]'
    assert settled.run(setting, until="dedup.cluster").exit_code == 0
    page = write(settled, tmp_path / "page", "--set", setting)
    is_safe(page, tmp_path / "page")
    leaks = settled.table("dedup.cluster", "leaks", setting)
    (row,) = page.tables["leaks-by-set"][1:]
    assert row == ["b", str(len(EVIL)), str(leaks["item"].n_unique()), str(leaks["sample_id"].n_unique())]
    assert leaks["item"].n_unique() == len(EVIL)
    assert "b: <script>alert(1)</script>" in page.words
    assert "0 bits apart, radius 4, as it is" in page.words
    report = ask(settled, "report", "--set", setting, "--json").json
    assert report["funnel"]["pub11"]["total"]["leak"] > 0
    assert "Leak" in page.tables["funnel-pub11"][0]
    assert "not known" not in page.tables["overlap"][0]
    assert "left in the end: an evaluation image" in page.words
    total = page.tables["overlap"][-1][-2]
    assert int(total) == report["funnel"]["pub11"]["total"]["duplicate"]


def test_pairs_at_the_edge_of_the_radius(settled, tmp_path):
    survivors = settled.table("dedup.cluster", "survivors").filter(pl.col("source") == "laion2b")["sample_id"].sort()
    base, outside, inside, flat = survivors[:4].to_list()
    hashes = {base: 0, outside: 0b111111, inside: 0b111 << 61, flat: 0b1 << 40}
    stripes, blocks = np.tile([1, -1], 128), np.tile([1, 1, -1, -1], 64)
    levels = {base: 0, outside: 3, inside: 12, flat: 3}

    def changed(frame):
        rows = frame.to_dicts()
        for row in rows:
            if row["sample_id"] in hashes:
                row["phash"] = hashes[row["sample_id"]]
                row["thumbnail"] = (100 + 20 * stripes + levels[row["sample_id"]] * blocks).tolist()
                row["texture"] = 1.0 if row["sample_id"] == flat else 20.0
        return pl.DataFrame(rows, schema=frame.schema)

    rewrite(settled, "dedup.inspect", "inspected", changed)
    page = write(settled, tmp_path / "page")
    is_safe(page, tmp_path / "page")
    outer, inner = (_part(page, *ends) for ends in (("outside", "disagreed"), ("disagreed", "about")))
    assert [_ids(pair) for pair in _pairs(outer)] == [sorted((base, outside))]
    assert "6 bits apart, radius 4; thumbnails differ by 3 levels, limit 9.156<" in outer
    # The nearest to its limit first; each picture once, so that the flat one is not shown beside another.
    assert _ids(_pairs(inner)[0]) == sorted((base, flat))
    assert "1 bit apart, radius 4; thumbnails differ by 3 levels, limit 2.315<" in inner
    assert all("limit 9.911<" not in pair or inside in pair for pair in _pairs(inner))
    assert page.text.count("rows that stayed were compared.") == 2


def _part(page, start, end):
    return page.source[page.source.index(f'id="{start}"') : page.source.index(f'id="{end}"')]


def _pairs(source):
    return source.split("<li><p>")[1:]


def _ids(source):
    return sorted(re.findall(r"<code>([0-9a-f]{32})</code>", source))


def test_a_damaged_tar_is_told_where_its_pictures_would_be(settled, tmp_path):
    whole = len(write(settled, tmp_path / "whole").images)
    # One tar has a gap, another one is cut short.
    tars = sorted((settled.path / "data/download.fetch").rglob("*.tar"), key=lambda path: path.stat().st_size)
    for tar in tars[-2:]:
        body = tar.read_bytes()
        tar.unlink()
        half = len(body) // 2
        tar.write_bytes(body[:1000] if tar is tars[-1] else body[:600] + bytes(half - 600) + body[half:])
    _sizes_as_they_are(settled)
    page = write(settled, tmp_path / "page")
    is_safe(page, tmp_path / "page")
    assert 0 < len(page.images) < whole
    gone = re.findall(r'<p class="gone">(.*?)</p>', page.source)
    assert len(gone) == whole - len(page.images)
    assert all(re.fullmatch(r"not stored any more: \d+ bytes at \d+ are not [0-9a-f]{12}", words) for words in gone)


def _sizes_as_they_are(workdir):
    """Let the commits say the sizes that files have now: damage that planning does not see."""
    for path in sorted((workdir.path / "commits/download.fetch").glob("*.json")):
        manifest = Manifest.model_validate_json(path.read_bytes())
        outputs = [o.model_copy(update={"bytes": (workdir.path / o.path).stat().st_size}) for o in manifest.outputs]
        path.unlink()
        path.write_bytes(manifest.model_copy(update={"outputs": outputs}).to_bytes())


def test_before_dedup_the_page_has_the_funnel_and_says_what_is_missing(fresh, tmp_path):
    fresh.run(until="filter")
    page = write(fresh, tmp_path / "page")
    is_safe(page, tmp_path / "page")
    assert page.tables["funnel-pub11"][1][:4] == ["LAION2B", "14", "9", "-"]
    assert "Not complete" in page.text
    assert "dedup.cluster has not run" in page.text
    assert page.images == []


def test_a_folder_of_someone_else_is_left_alone(built, tmp_path):
    for name in ("notes.txt", "index.html", "img"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        if name == "img":
            (folder / "img").mkdir()
            (folder / "img/holiday.jpg").write_bytes(b"mine")
        else:
            (folder / name).write_text("mine")
        before = sorted(folder.rglob("*"))
        answer = ask(built, "report", "--html", str(folder))
        assert answer.exit_code == 2
        assert "was not written by a report; name a new or an empty folder" in answer.err
        assert sorted(folder.rglob("*")) == before
    (tmp_path / "file").write_text("mine")
    assert ask(built, "report", "--html", str(tmp_path / "file")).exit_code == 2
    assert "local folder" in ask(built, "report", "--html", "s3://bucket/page").err


def test_an_earlier_page_is_replaced_and_nothing_of_it_is_left(settled, built, tmp_path):
    folder = tmp_path / "page"
    write(settled, folder)
    (folder / "img" / ("0" * 16 + ".jpg")).write_bytes(b"of an earlier page")
    (folder / ".tmp-0123").write_bytes(b"of an interrupted one")
    page = write(built, folder)
    is_safe(page, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["img", "index.html"]


def test_a_page_and_json_at_once_is_an_error(built, tmp_path):
    answer = ask(built, "report", "--json", "--html", str(tmp_path / "page"))
    assert (answer.exit_code, answer.out) == (2, "")
    assert "one of them at a time" in answer.err
    assert not (tmp_path / "page").exists()


def test_a_table_that_cannot_be_read_is_one_line(settled, tmp_path):
    path = min(settled.path.glob("data/dedup.cluster/all/clusters-*.parquet"))
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(bytes(size))
    answer = ask(settled, "report", "--html", str(tmp_path / "page"))
    assert answer.exit_code == 2
    assert "run `rs5m-build verify`" in answer.err
    assert not (tmp_path / "page/index.html").exists()
