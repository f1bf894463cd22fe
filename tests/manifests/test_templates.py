import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.templates import KINDS, TemplateError, load_templates, parse_templates

OURS = load_templates("ours-1")


def test_every_kind_has_templates_that_carry_all_its_facts():
    assert set(OURS.kinds) == set(KINDS)
    for kind, facts in KINDS.items():
        complete = [template for template in OURS.kinds[kind] if template.needs == facts]
        assert len(complete) >= 3, kind
        assert {template.needs for template in OURS.kinds[kind]} <= {t.needs for t in OURS.kinds[kind] if t.needs}


def test_no_sentence_stands_twice():
    sentences = [t.filled({fact: fact for fact in t.needs}) for kind in OURS.kinds.values() for t in kind]
    assert len(set(sentences)) >= len(sentences) - 5  # kinds of one fact may agree
    assert all(sentence[0].isupper() for sentence in sentences)


def test_templates_that_tell_the_most_of_what_is_known():
    facts = {"class_labels": "pastures", "timestamp": "May 1, 2018"}
    assert [t.needs for t in OURS.usable("ben", facts)] == [facts.keys()]
    assert len(OURS.usable("ben", facts | {"season": "spring", "utm_zone": "29U"})) >= 3
    assert OURS.usable("ben", {"season": "spring"}) == []
    assert OURS.usable("unknown", facts) == []


def test_a_file_of_the_user(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[cc3m]\ntemplates = ["{class_label} {{sic}}"]\n', encoding="utf-8")
    (template,) = load_templates(str(path)).kinds["cc3m"]
    assert template.filled({"class_label": "\u00e9cole"}) == "\u00c9cole {sic}"
    assert load_templates(str(path)).digest != OURS.digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[cc3m]\ntemplates = ["{country}"]', r"cc3m/0: \{country\} is no fact of cc3m; use \{class_label\}"),
        ('[cc3m]\ntemplates = ["{class_label.__class__}"]', "is no fact of cc3m"),
        ('[cc3m]\ntemplates = ["{class_label!r}"]', "is no fact of cc3m"),
        ('[cc3m]\ntemplates = ["{class_label:>9}"]', "is no fact of cc3m"),
        ('[cc3m]\ntemplates = ["{}"]', "is no fact of cc3m"),
        ('[cc3m]\ntemplates = ["open {"]', "write a brace as two"),
        ("[cc3m]\ntemplates = []", "one text or more"),
        ("[cc3m]\ntemplates = [1]", "one text or more"),
        ("cc3m = 1", "one text or more"),
        ("[sbu]\ntemplates = ['a']", "known kinds: fmow_complex, ben"),
        ("[cc3m", "no TOML file"),
    ],
)
def test_why_files_are_refused(text, why):
    with pytest.raises(TemplateError, match=why):
        parse_templates(text.encode(), "mine.toml")


def test_no_such_templates(tmp_path):
    with pytest.raises(TemplateError, match=r"no templates 'theirs'; known: ours-1; or give the path"):
        load_templates("theirs")
    with pytest.raises(TemplateError, match=r"cannot read .*none\.toml: No such file"):
        load_templates(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(TemplateError, match="in UTF-8"):
        load_templates(str(tmp_path / "latin.toml"))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw):
    with contextlib.suppress(TemplateError):
        parse_templates(raw, "any")
