"""Putting pictures onto the miniature web: original urls, copies across sources, failures, rows that filter refuses."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pipeline.world.behaviours import EXPECTED, STAGED, serve_failure
from pipeline.world.draft import TABLES, Draft, Picture, Row, choose, texts_for
from pipeline.world.images import Encoded

HOSTS = (
    "atlas", "overhead", "tiles", "gallery", "photos", "cdn", "static", "blog", "maps", "library", "archive", "media",
    "press", "museum", "field", "campus", "agency", "wiki", "travel", "albums",
)  # fmt: skip
"""Hosts that answer in time, without the domain ``rs5m.test``."""


Spelling = Literal["same", "fragment", "upper"]


def url_of(picture: Picture, image: Encoded, variant: str = "") -> str:
    """Return the url of one file of a picture: host, folder and spelling vary, but never between builds."""
    host = choose(HOSTS, "host", picture.name, variant)
    name = f"{picture.name}{'-' + variant if variant else ''}.{image.suffix}"
    path = choose(("img/{}", "uploads/2023/{}", "pictures/full/{}", "view?file={}", "my%20maps/{}"), "path", name)
    return f"http://{host}.rs5m.test/{path.format(name)}"


def publish(draft: Draft, picture: Picture, source: str, behaviour: str = "ok") -> Row:
    """Publish a picture for the first time.

    Args:
        draft: The world.
        picture: The picture; its file joins the world.
        source: Which source's metadata names it.
        behaviour: One of `behaviours.OK`.

    Returns:
        The row.
    """
    draft.files[picture.file] = picture.image.body
    url = url_of(picture, picture.image)
    staged = None
    if behaviour == "slow":
        url = url.replace(url.split("/")[2], "slow.rs5m.test", 1)
        draft.serve(url, "slow", picture.file, delay_s=0.3)
        staged = "answers after 0.3 s"
    elif behaviour == "redirect":
        moved = f"http://moved.rs5m.test/here/{picture.name}.{picture.image.suffix}"
        draft.serve(moved, "ok", picture.file)
        draft.serve(url, "redirect", location=moved, status=int(choose(("301", "302", "307"), "status", picture.name)))
        staged = "redirects to a url that works"
    else:
        draft.serve(url, behaviour, picture.file)
        staged = {"flaky": "503 once, then the image", "flaky429": "429 once, then the image"}.get(behaviour)
    return draft.add(picture, picture.image, source, url, turn=0, staged=staged)


def publish_url_again(draft: Draft, first: Row, source: str, turn: int, spelling: Spelling = "same") -> None:
    """Let another source name the url of ``first``, letter by letter, with a fragment, or with the host in capitals."""
    picture, image = _shown(first)
    url = str(first.url)
    host = url.split("/")[2]
    url = {"same": url, "fragment": f"{url}#photo", "upper": url.replace(host, host.upper(), 1)}[spelling]
    staged = "the url stands in another source too" + ("" if spelling == "same" else ", spelled otherwise")
    draft.add(picture, image, source, url, turn, proof="url", staged=staged)


def publish_bytes_again(draft: Draft, first: Row, source: str, turn: int) -> None:
    """Publish the very bytes of ``first`` at another url."""
    picture, image = _shown(first)
    url = url_of(picture, image, "copy")
    draft.serve(url, "ok", picture.file)
    draft.add(picture, image, source, url, turn, proof="bytes", staged="the same bytes at another url")


def publish_near(draft: Draft, first: Row, copy: Encoded, variant: str, source: str, turn: int) -> None:
    """Publish a near copy of the picture of ``first``; ``variant`` names it (``q55``, ``small``)."""
    picture, _ = _shown(first)
    file = f"images/{picture.name}-{variant}.{copy.suffix}"
    draft.files[file] = copy.body
    url = url_of(picture, copy, variant)
    draft.serve(url, "ok", file)
    how = "resized" if variant == "small" else "encoded again as JPEG"
    draft.add(picture, copy, source, url, turn, proof="near", staged=how)


def publish_failures(
    draft: Draft,
    counts: Mapping[str, int],
    pictures: list[Picture],
    sources: tuple[str, ...] = TABLES,
    number: int = 0,
) -> None:
    """Stage urls that fail.

    Args:
        draft: The world.
        counts: How many of each behaviour.
        pictures: JPEG pictures of the world, whose sentences stand beside the dead urls.
        sources: Whose metadata name them, in turn.
        number: Of the first; no other may have it.
    """
    for behaviour, count in counts.items():
        for _ in range(count):
            picture = pictures[number * 7 % len(pictures)]
            host, source = choose(HOSTS, "fail", number), sources[number % len(sources)]
            url = serve_failure(draft, behaviour, host, number, picture.file)
            texts = texts_for(source, picture.texts, number)
            row = Row(source, url, texts, True, EXPECTED[behaviour], staged=STAGED[behaviour])
            if behaviour in ("truncated_file", "short_body"):
                row = replace(row, picture=picture)
                draft.describe(url, picture)
            draft.rows.append(row)
            number += 1


def add_refused_rows(draft: Draft, sentences: tuple[str, ...], long_text: bool) -> None:
    """Add rows that the filter must refuse although their text matches, and lines that cannot be read.

    Args:
        draft: The world.
        sentences: Sentences with a keyword.
        long_text: Whether one row's text is longer than 64 KiB.
    """
    for source in ("laion2b", "coyo700m"):
        texts = texts_for(source, sentences, 0)
        draft.rows.append(Row(source, None, texts, True, "filter.no_url", staged="no url"))
    urls = (
        ("laion400m", "cdn.rs5m.test/no-scheme/laion400m.jpg", "a url without a scheme"),
        ("cc12m", "cdn.rs5m.test/no-scheme/cc12m.jpg", "a url without a scheme"),
        ("laioncoco", "javascript:void(0)", "a url that is a script"),
        ("coyo700m", "http:///no-host.jpg", "a url without a host"),
    )
    for source, url, staged in urls:
        draft.rows.append(Row(source, url, texts_for(source, sentences, 1), True, "filter.bad_url", staged=staged))
    for source in ("laion2b", "coyo700m"):
        url = f"http://cdn.rs5m.test/no-text/{source}.jpg"
        draft.rows.append(Row(source, url, (), False, "filter.no_keyword", staged="null text"))
    lines = (
        ("cc3m", b"Aerial view of a field without any tab", "a line without a tab"),
        ("cc3m", b"Aerial view of a f\xffeld\thttp://cdn.rs5m.test/latin.jpg", "a line that is not UTF-8"),
        ("cc12m", b"http://cdn.rs5m.test/latin-2.jpg\tSatellite image of a \xe9tang", "a line that is not UTF-8"),
    )
    for source, raw, staged in lines:
        draft.rows.append(Row(source, None, (), False, "filter.bad_row", staged=staged, raw=raw))
    if long_text:
        text = (sentences[0] + ". ") * (1 + (70 << 10) // len(sentences[0]))
        url = "http://cdn.rs5m.test/long/text.jpg"
        draft.rows.append(Row("laion2b", url, (text,), True, "filter.text_too_long", staged="a text of 70 KiB"))


def repeat_rows(draft: Draft, sources: tuple[str, ...]) -> None:
    """Repeat the first published row of each source, url and text alike."""
    for source in sources:
        row = next(row for row in draft.rows if row.source == source and row.fetched and row.proof is None)
        draft.rows.append(replace(row, ordinal=1, staged="the row stands twice in this source"))


def add_stray_quote(draft: Draft, source: str) -> None:
    """Put a quote that is never closed in front of one row's text (TSV is not CSV)."""
    spot = next(i for i, row in enumerate(draft.rows) if row.source == source and row.fetched and row.proof is None)
    row = draft.rows[spot]
    draft.rows[spot] = replace(row, texts=(f'"{row.texts[0]}',), staged="a quote that is never closed")


def other_source(taken: tuple[str, ...], *key: str | int) -> str:
    """Choose one of `TABLES`, by key, that is not in ``taken``."""
    return choose((source for source in TABLES if source not in taken), "other", *key)


def weighted_source(*key: str | int) -> str:
    """Choose a source by key; the large sources more often, roughly as in the published funnel."""
    return choose(
        ("laion2b",) * 7 + ("laioncoco",) * 5 + ("coyo700m",) * 3 + ("laion400m",) * 2 + ("cc12m", "cc3m"), *key
    )


def _shown(row: Row) -> tuple[Picture, Encoded]:
    if row.picture is None or row.image is None:
        raise ValueError(f"{row.url} shows no picture that could be copied")
    return row.picture, row.image
