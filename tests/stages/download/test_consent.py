"""What an owner's headers refuse, and what they only seem to."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from stages.download.answers import DETAIL_BYTES, Consent
from stages.download.consent import MAX_CHARS, ROBOTS_TXT, TDM, X_ROBOTS_TAG, heeded, names_us, refusal

ALL = Consent(robots=True, headers=True, tdm=True)


def proxy(*headers: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(headers))


def tagged(*lines: str) -> str | None:
    return refusal(proxy(*(("X-Robots-Tag", line) for line in lines)), ALL)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("noai", "noai"),
        ("NoImageAI", "noimageai"),
        ("noindex", "noindex"),
        ("noimageindex", "noimageindex"),
        ("noml", "noml"),
        ("none", "none"),
        ("noarchive, noai", "noai"),
        (" nofollow ,\tnoimageai ", "noimageai"),
        ("noai noimageai", "noai"),
        ("nofollow; noai", "noai"),
        ("rs5m-build: noai", "rs5m-build: noai"),
        ("RS5M-Build: nofollow, noml", "RS5M-Build: noml"),
        ("rs5m-build/1.0: noai", "rs5m-build/1.0: noai"),
        ("*: noai", "*: noai"),
        ("googlebot: noarchive, rs5m-build: noindex", "rs5m-build: noindex"),
        ("noai, googlebot: all", "noai"),
        ("noindex googlebot: nofollow", "noindex"),
        ("noai: 1", "noai"),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noai", "noai"),
        ("unavailable_after: Friday, 25-Jun-10 15:00:00 PST, noai", "noai"),
        ("unavailable_after: Fri, 2010-06-25T15:00:00+00:00, noai", "noai"),
        ("rs5m-build: unavailable_after: 25 Jun 2010 15:00:00 PST, noai", "rs5m-build: noai"),
        ("max-image-preview:large, noai", "noai"),
        ("max-snippet: 20, max-video-preview: -1, noai", "noai"),
        (",,, ,noai", "noai"),
    ],
)
def test_directives_that_refuse(line: str, found: str) -> None:
    assert tagged(line) == f"X-Robots-Tag: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "all",
        "index, follow, noarchive, nosnippet, nofollow, notranslate",
        "googlebot: noindex",
        "googlebot: noindex, noai",
        "Googlebot-Image/1.0: noimageindex",
        "rs5m: noai",
        "rs5m-builder: noai",
        "my-rs5m-build: noai",
        "360Spider: noindex, noai",
        "googlebot: unavailable_after: 25 Jun 2010 15:00:00 PST, noai",
        "rs5m-build: all, otherbot: none",
        "max-image-preview:none",
        "max-image-preview: none",
        "rs5m-build: max-image-preview: none",
        "max-image-preview none",
        "unavailable_after: none",
        "noaim, xnoai, no-ai, noindex-me",
        ": : :",
        ":",
    ],
)
def test_directives_that_do_not_refuse_us(line: str) -> None:
    assert tagged(line) is None


def test_each_line_begins_without_a_robot_and_the_name_of_the_header_has_any_case() -> None:
    assert tagged("googlebot: noindex", "noai") == "X-Robots-Tag: noai"
    assert tagged("noarchive", "otherbot: none") is None
    assert refusal(proxy(("x-robots-tag", "noai")), ALL) == "X-Robots-Tag: noai"


@pytest.mark.parametrize(
    ("value", "refuses"),
    [("1", True), (" 1 ", True), ("0, 1", True), ("0", False), ("", False), ("01", False), ("true", False)],
)
def test_tdm_reservation(value: str, refuses: bool) -> None:
    assert refusal(proxy(("TDM-Reservation", value)), ALL) == ("tdm-reservation: 1" if refuses else None)


def test_a_tdm_policy_is_named_beside_the_reservation_but_refuses_nothing_alone() -> None:
    policy = ("tdm-policy", "https://example.org/policy.json")
    words = "tdm-reservation: 1, tdm-policy: https://example.org/policy.json"
    assert refusal(proxy(("tdm-reservation", "1"), policy), ALL) == words
    assert refusal(proxy(policy), ALL) is None
    assert refusal(proxy(("tdm-reservation", "0"), policy), ALL) is None
    long = refusal(proxy(("tdm-reservation", "1"), ("tdm-policy", "\x07\udcff" + "p" * 5000)), ALL)
    assert long is not None
    assert long.startswith("tdm-reservation: 1, tdm-policy: ??ppp")
    assert len(long) == DETAIL_BYTES


def test_only_what_is_switched_on_is_heeded() -> None:
    both = proxy(("X-Robots-Tag", "noai"), ("tdm-reservation", "1"))
    assert refusal(both, ALL) == "X-Robots-Tag: noai"
    assert refusal(both, Consent(robots=True, headers=False, tdm=True)) == "tdm-reservation: 1"
    assert refusal(both, Consent(robots=True, headers=False, tdm=False)) is None


@pytest.mark.parametrize("robots", [True, False])
@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("tdm", [True, False])
def test_a_recorded_refusal_stands_while_its_kind_is_heeded(robots: bool, headers: bool, tdm: bool) -> None:
    now = Consent(robots=robots, headers=headers, tdm=tdm)
    assert heeded(f"{ROBOTS_TXT}: Disallow for *", now) is robots
    assert heeded(f"{X_ROBOTS_TAG}: noai", now) is headers
    assert heeded(f"{TDM}: 1", now) is tdm
    assert heeded("something else", now)
    assert heeded(None, now)


def test_names_of_robots_are_compared_as_whole_tokens() -> None:
    assert names_us("rs5m-build")
    assert names_us("RS5M-BUILD/2 (+https://example.org)")
    assert not any(names_us(name) for name in ("", "*", "rs5m", "rs5m-build-2", "rs5m_build", " rs5m-build", "build"))


LINES = st.text() | st.lists(
    st.sampled_from([*"noai none rs5m-build googlebot unavailable_after max-snippet 15 \t é \x00 ,,, :: ;".split(" ")])
).map("".join)


@given(st.lists(LINES, max_size=4), LINES)
def test_anything_may_be_sent(lines: list[str], reservation: str) -> None:
    headers = [("X-Robots-Tag", line) for line in lines] + [("tdm-reservation", reservation)]
    found = refusal(proxy(*headers), ALL)
    assert found == refusal(proxy(*headers), ALL)
    if found is not None:
        assert found.isprintable()
        assert len(found.encode()) <= DETAIL_BYTES
        assert not heeded(found, Consent(robots=True, headers=False, tdm=False))


PARAMETERS = st.sampled_from(
    [
        "max-snippet: 5",
        "max-image-preview:none",
        "unavailable_after: Wed, 25 Jun 2010 15:00:00 PST",
        "unavailable_after: 2010-06-25T15:00:00",
        "max-video-preview:-1",
    ]
)


@given(st.lists(PARAMETERS), st.sampled_from(["noai", "noindex", "none"]), st.lists(PARAMETERS))
def test_parameters_neither_refuse_nor_hide_a_refusal(before: list[str], directive: str, after: list[str]) -> None:
    assert tagged(", ".join([*before, *after])) is None
    assert tagged(", ".join([*before, directive, *after])) == f"X-Robots-Tag: {directive}"
    assert tagged(", ".join(["otherbot: follow", *before, directive, *after])) is None


@pytest.mark.parametrize("piece", [":", ",", "a:", "a ", " ", "noa", "a:b:c,", "max-", "unavailable_after:,", "1-"])
def test_hostile_lines_cost_time_in_proportion_to_their_length(piece: str) -> None:
    def seconds(chars: int) -> float:
        line = piece * (chars // len(piece))
        best = 9.0
        for _ in range(3):
            begun = time.thread_time()
            assert tagged(line) is None
            best = min(best, time.thread_time() - begun)
        return best

    # Sixteen times the length may take sixteen times as long, not 256; the floor is for the clock.
    assert seconds(MAX_CHARS) < 64 * max(seconds(MAX_CHARS // 16), 5e-5)


def test_what_comes_after_the_bound_is_not_read() -> None:
    assert tagged("a," * (MAX_CHARS // 2), "noai") is None
    assert tagged("a," * (MAX_CHARS // 2 - 2), "noai") == "X-Robots-Tag: noai"
