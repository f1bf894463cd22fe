"""Urls of the open web: mended, stripped of credentials, or refused; never a crash."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from stages.download.targets import parse_redirect, parse_target


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a.test/x.jpg", "http://a.test/x.jpg"),
        ("  HTTPS://A.test/x y.jpg#top\n", "https://a.test/x%20y.jpg"),
        ("http://me:secret@a.test/x", "http://a.test/x"),
        ("http://:secret@a.test/x", "http://a.test/x"),
        ("http://a.test/%zz", "http://a.test/%25zz"),
        ("http://a.test/a%2Fb?q=%26", "http://a.test/a%2Fb?q=%26"),
        ("http://b\u00fccher.test/\u00e9.jpg", "http://xn--bcher-kva.test/%C3%A9.jpg"),
        ("http://2130706433/x", "http://127.0.0.1/x"),
        ("http://0x7f.1/x", "http://127.0.0.1/x"),
        ("http://0177.0.0.1:81/x", "http://127.0.0.1:81/x"),
        ("http://127.1./x", "http://127.0.0.1/x"),
        ("http://[::1]:80/x", "http://[::1]/x"),
    ],
)
def test_readable_urls(text: str, url: str) -> None:
    assert str(parse_target(text)) == url


@pytest.mark.parametrize(
    "text",
    (
        "  x.jpg ftp://a.test/x file:///etc/passwd data:image/png;base64,AA http:// http:///x http://[::1/x "
        "http://a.test:99999/x http://999.1.1.1/x javascript:alert(1) //a.test/x"
    ).split(" ")[1:],
)
def test_the_rest_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_target(text)
    assert len(str(refused.value)) < 200


@given(st.text(max_size=40) | st.text(max_size=30).map(lambda text: "http://" + text))
@example("http://\udc80/")
@example("http://a/\ud800")
@example("http://a\0b/")
@example("http://a.test/\r\nHost: evil")
@example("http://" + "a" * 300)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        url = parse_target(text)
    except ValueError:
        return
    assert url.scheme in ("http", "https")
    assert url.raw_host
    assert url.raw_user is None
    assert str(url).isascii()
    assert not set("\r\n \0") & set(str(url))


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/y", "http://a.test/y"),
        ("y?z=1", "http://a.test/dir/y?z=1"),
        ("//b.test/y", "http://b.test/y"),
        ("https://u:p@b.test/y", "https://b.test/y"),
    ],
)
def test_redirects_are_read_against_where_they_came_from(location: str, url: str) -> None:
    assert parse_redirect(URL("http://a.test/dir/x"), location) == URL(url)


@pytest.mark.parametrize("location", ["ftp://a.test/x", "http://[x/", "file:///etc/passwd", "mailto:a@b.test"])
def test_redirects_elsewhere_are_refused(location: str) -> None:
    with pytest.raises(ValueError):
        parse_redirect(URL("http://a.test/"), location)
