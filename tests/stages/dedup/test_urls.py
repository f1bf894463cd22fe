import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.dedup.urls import normalise

PIECES = st.sampled_from(
    ["http", "HTTPS", "://", ":", "//", "@", "a.org", "B.Org", ":80", ":443", "/", "?", "#", "%41", "%2f", "%", "[::1]",
     "\n", " ", "\\", "é", "=", "&", ".."]
)  # fmt: skip


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://Example.ORG", "//example.org/"),
        ("HTTPS://example.org/", "//example.org/"),
        ("http://example.org:80/a", "//example.org/a"),
        ("https://example.org:443/a", "//example.org/a"),
        ("https://example.org:/a", "//example.org/a"),
        ("http://example.org:443/a", "//example.org:443/a"),
        ("http://example.org:8080/a", "//example.org:8080/a"),
        ("http://example.org/a#top", "//example.org/a"),
        ("http://example.org?b=2&a=1#f?x", "//example.org/?b=2&a=1"),
        ("http://example.org/%7Eme/%41%2D%2e%5f", "//example.org/~me/A-._"),
        ("http://example.org/a%2Fb%2fc%20d?x=%41%26", "//example.org/a%2Fb%2fc%20d?x=A%26"),
        ("http://example.org/%2541", "//example.org/%2541"),
        ("http://example.org/Path/../x.JPG?", "//example.org/Path/../x.JPG?"),
        ("http://User:Pw@Example.org/", "//User:Pw@example.org/"),
        ("http://[2001:DB8::1]:80/a", "//[2001:db8::1]/a"),
    ],
)
def test_stated_changes_and_no_others(url, normal):
    assert normalise(url) == normal


@pytest.mark.parametrize(
    "url",
    ["", "a.jpg", "//Example.org/a", "ftp://Example.org/A", "file:///A", "http:/Example.org", "http://", "http:///A",
     "http://:80/a", "http://a:b:c/", "http://a:8x/", " http://Example.org/", "data:image/png;base64,AA"],
)  # fmt: skip
def test_odd_urls_come_back_as_they_are(url):
    assert normalise(url) == url


@given(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join)))
@example("http://a/%25%34%31")
@settings(max_examples=500)
def test_any_text_is_accepted_and_normal_forms_stay(url):
    assert normalise(normalise(url)) == normalise(url)


@given(st.from_regex(r"[a-z]{1,8}\.org/[a-zA-Z0-9/?=&%._~-]{0,20}", fullmatch=True))
def test_scheme_and_fragment_do_not_matter(rest):
    assert normalise(f"http://{rest}") == normalise(f"https://{rest}") == normalise(f"HTTP://{rest}#part")
