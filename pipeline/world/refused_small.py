"""Rows of the smaller sources that the filter must refuse, each in its own layout, and rows that cannot be read."""

from __future__ import annotations

from typing import Any

from pipeline.world.draft import Draft, Row, texts_for
from pipeline.world.line_layouts import WIT_FIELDS

_NO_URL = ("wit", "yfcc14m", "redcaps", "sbu", "vg")
_BAD_URLS = (
    ("wit", "javascript:alert(1)", "a url that is a script"),
    ("yfcc14m", "data:image/png;base64,AAAA", "a url that is data"),
    ("redcaps", "http:///no-host.jpg", "a url without a host"),
    ("sbu", "static.rs5m.test/no-scheme.jpg", "a url without a scheme"),
    ("vg", "https://:443/no-host.jpg", "a url without a host"),
)
_RECORD_FIELDS = 23
_TITLE, _DOWNLOAD_URL = 6, 14


def add_refused_small(draft: Draft, sources: tuple[str, ...], sentences: tuple[str, ...], *, long_text: bool) -> None:
    """Add rows with a keyword and no usable url, rows that cannot be read, and one text that is too long.

    Args:
        draft: The world.
        sources: Whose rows that cannot be read are wanted; cc3m stands for its file with labels.
        sentences: Sentences with a keyword.
        long_text: Whether one row's text is longer than 64 KiB.
    """
    for source in _NO_URL:
        texts = texts_for(source, sentences, 0)
        draft.rows.append(Row(source, None, texts, True, "filter.no_url", staged="no url"))
    for source, url, staged in _BAD_URLS:
        draft.rows.append(Row(source, url, texts_for(source, sentences, 1), True, "filter.bad_url", staged=staged))
    for source, raw, staged, said in (entry for entry in _unreadable() if entry[0] in sources):
        draft.rows.append(Row(source, None, (), False, "filter.bad_row", staged=staged, raw=raw, said=said))
    if long_text:
        text = (sentences[0] + ". ") * (1 + (70 << 10) // len(sentences[0]))
        url = "http://farm1.static.rs5m.test/long/text.jpg"
        draft.rows.append(Row("sbu", url, (text,), True, "filter.text_too_long", staged="a text of 70 KiB"))


def _unreadable() -> tuple[tuple[str, bytes, str, dict[str, Any]], ...]:
    page = ["en", *[""] * (len(WIT_FIELDS) - 1)]
    page[2], page[6] = "http://commons.rs5m.test/latin.jpg", "Aerial view of a f?eld"
    short, latin, video = "9000000001", "9000000002", "9000000003"
    return (
        ("wit", "\t".join(page[:-1]).encode(), "a line of 16 fields", {}),
        ("wit", "\t".join(page).encode().replace(b"?", b"\xff"), "a line that is not UTF-8", {}),
        ("yfcc14m", _record(short, "Aerial+view", _RECORD_FIELDS - 1), "a record of 22 fields", {"photo_id": short}),
        ("yfcc14m", _record(latin, "Aerial+view+of+an+%E9tang"), "percent-encoded, not UTF-8", {"photo_id": latin}),
        ("yfcc14m", _record(video, "Aerial+view") + b"1", "a video", {"photo_id": video}),
        ("redcaps", b'"Aerial view of a town"', "an annotation that is no object", {}),
        ("redcaps", _annotation(rb'"Aerial view \ud800"'), "a text with half a surrogate pair", {}),
        ("sbu", b'{"image_urls":"http://farm1.static.rs5m.test/7.jpg","user_ids":"1","captions":7}',
         "a caption that is a number", {}),
        ("vg", b'{"id":2400001,"regions":[{"region_id":1,"image_id":2400001,"phrase":7}]}',
         "a phrase that is a number", {}),
        ("vg", b'"Aerial view of a town"', "an image that is no object", {}),
        ("cc3m", b"Aerial view of a field\thttp://albums.rs5m.test/3.jpg\tfield,plant", "a line of 3 fields",
         {"labels": ()}),
    )  # fmt: skip


def _record(photo_id: str, title: str, fields: int = _RECORD_FIELDS) -> bytes:
    record = [photo_id, *[""] * (fields - 1)]
    record[_TITLE], record[_DOWNLOAD_URL] = title, f"http://farm1.static.rs5m.test/{photo_id}.jpg"
    return "\t".join(record).encode()


def _annotation(text: bytes) -> bytes:
    url = b'"http://i.forum.rs5m.test/half.jpg"'
    return b'{"image_id":"half","url":%s,"caption":%s,"raw_caption":%s}' % (url, text, text)
