import hashlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.download.placeholders import LEAST, LEAST_LISTED, MOST_LISTED, merged, placeholders

EMPTY = hashlib.sha256(b"").hexdigest()


def rows(*of):
    schema = {"sha256": pl.String, "url": pl.String, "text": pl.String}
    return pl.DataFrame(list(of), schema=schema, orient="row")


def gone(count, sha256="gone"):
    return [(sha256, f"http://a.org/{number}.jpg", f"caption {number}") for number in range(count)]


def test_one_body_for_many_pictures_is_listed():
    found = placeholders(rows(*gone(4), ("real", "http://a.org/real.jpg", "a real one")))
    assert found == [{"sha256": "gone", "urls": 4, "texts": 4}]


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("too few", gone(LEAST_LISTED - 1)),
        ("a syndicated picture", [("s", f"http://host{n}.org/p.jpg", "Flood from above") for n in range(50)]),
        ("case and space", [("s", f"http://h{n}/p", ["A b", "a  B ", "a\nb"][n % 3]) for n in range(9)]),
        ("one url, many captions", [("s", "http://a.org/p.jpg", f"caption {n}") for n in range(50)]),
        ("queries", [("s", f"http://a.org/p.jpg?w={n}", f"caption {n}") for n in range(50)]),
        ("fragments", [("s", f"http://a.org/p.jpg#{n}", f"caption {n}") for n in range(50)]),
        ("schemes and hosts", [("s", f"{u}/p", f"{n}") for n, u in enumerate(["http://a", "https://a", "HTTPS://A"])]),
        ("no captions", [("s", f"http://a.org/{n}", " " * n) for n in range(50)]),
        ("empty bodies", gone(50, EMPTY)),
        ("nothing", []),
    ],
)
def test_what_is_no_placeholder(name, of):
    assert placeholders(rows(*of)) == [], name


def test_the_path_keeps_its_case():
    assert placeholders(rows(*(("s", f"http://a.org/{p}", p * n) for n, p in enumerate("aAbB", 1))))[0]["urls"] == 4


def test_most_urls_come_first_then_digests_and_the_list_is_bounded():
    several = [row for count, name in ((3, "b"), (3, "a"), (5, "c")) for row in gone(count, name)]
    assert [one["sha256"] for one in placeholders(rows(*several))] == ["c", "a", "b"]
    many = rows(*(row for number in range(MOST_LISTED + 5) for row in gone(3, f"{number:03d}")))
    assert [one["sha256"] for one in placeholders(many)] == [f"{number:03d}" for number in range(MOST_LISTED)]


ROWS = st.tuples(
    st.sampled_from(["x", "y", EMPTY]),
    st.tuples(st.sampled_from(["http://", "https://"]), st.sampled_from("abcd"), st.sampled_from(["", "?q", "#f"]))
    .map("".join),
    st.sampled_from(["", "one", "ONE ", "two", "three"]),
)  # fmt: skip


@given(st.lists(ROWS, max_size=40), st.randoms(use_true_random=False))
def test_any_rows_in_any_order(of, draw):
    found = placeholders(rows(*of))
    expected = []
    for sha256 in {row[0] for row in of} - {EMPTY}:
        urls = {url.split("://")[1].removesuffix("?q").removesuffix("#f") for digest, url, _ in of if digest == sha256}
        texts = {text.strip().lower() for digest, _, text in of if digest == sha256} - {""}
        if len(urls) >= LEAST_LISTED <= len(texts):
            expected.append({"sha256": sha256, "urls": len(urls), "texts": len(texts)})
    assert found == sorted(expected, key=lambda one: (-one["urls"], one["sha256"]))
    draw.shuffle(of)
    assert placeholders(rows(*of)) == found


def test_partitions_are_summed_and_then_judged():
    def one(sha256, urls, texts):
        return {"sha256": sha256, "urls": urls, "texts": texts}

    lists = [
        [one("b", 6, 6), one("few texts", 30, 9)],
        [],
        [one("b", 4, 4), one("few urls", 9, 9), one("a", 10, 12), one("most", 40, 10)],
    ]
    expected = [one("most", 40, 10), one("a", 10, 12), one("b", 10, 10)]
    assert merged(lists) == merged(lists[::-1]) == expected
    assert merged([placeholders(rows(*gone(LEAST)))]) == [one("gone", LEAST, LEAST)]
    assert merged([]) == []
