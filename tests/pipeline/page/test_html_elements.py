import html
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.page.html_elements import Html, cut, element, joined, link


class Reader(HTMLParser):
    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.words = [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, words):
        self.words += words


@given(st.text(), st.text())
def test_any_text_stays_text(words, value):
    shown = element("p", words, title=value)
    assert not any(unicodedata.category(char)[0] == "C" for char in shown)
    read = Reader(shown)
    assert [tag for tag, _ in read.tags] == ["p"]
    assert list(read.tags[0][1]) == ["title"]
    if words.isprintable():
        assert read.words == words
    if value.isprintable():
        assert read.tags[0][1]["title"] == value


def test_elements_go_in_as_they_are_and_text_is_escaped():
    inner = element("b", "1 < 2")
    assert element("p", inner, " & <i>") == "<p><b>1 &lt; 2</b> &amp; &lt;i&gt;</p>"
    assert element("img", alt='"', aria_label="x", class_="y") == '<img alt="&quot;" aria-label="x" class="y">'
    assert joined([inner, Html("<br>"), "<"]) == "<b>1 &lt; 2</b><br>&lt;"
    assert isinstance(inner, Html)
    # What is put together outside is text again: it is escaped once more rather than trusted.
    assert element("p", f"{inner}") == f"<p>{html.escape(inner)}</p>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\u202eb", "a\\u202eb"), ("\x00\x1b", "\\x00\\x1b"), ("a\nb\u2028c\u00a0d", "a b c d"),
     ("caf\u00e9", "caf\u00e9"), ("\U000e0041", "\\U000e0041"), ("\ud800", "\\ud800")],
)  # fmt: skip
def test_what_does_not_show_is_shown(text, shown):
    assert joined([text]) == shown


@pytest.mark.parametrize("url", ["http://a.test/b?c=d&e", "HTTPS://a.test/'\"<>"])
def test_a_url_of_the_web_is_linked(url):
    ((tag, attributes), _) = Reader(link(url, 100)).tags
    assert (tag, attributes) == ("a", {"href": url, "rel": "noopener noreferrer nofollow"})


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "JaVaScRiPt:alert(1)", " http://a.test", "data:text/html,a", "file:///etc/passwd",
     "//a.test", "http:a", "http://a b", "http://a\n", "http://\u0430.test", "http://a.test/" + "x" * 2000,
     "fmow:train/a.jpg", ""],
)  # fmt: skip
def test_what_is_none_is_text(url):
    assert [tag for tag, _ in Reader(link(url, 5000)).tags] == ["bdi"]


@given(st.text(), st.integers(1, 50))
def test_long_text_is_cut(text, most):
    short = cut(text, most)
    assert len(short) <= most
    assert short == text if len(text) <= most else short == text[: most - 1] + "\u2026"
