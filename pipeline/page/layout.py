"""The page of a build: what the report says, and what its copies look like; one file of HTML without a script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.page.facts import MOST_MEMBERS, Facts
from pipeline.page.html_elements import Html, element, joined
from pipeline.page.near_survivors import BEYOND_BITS, NearSurvivors
from pipeline.page.pictures import Album, cluster_gallery, dropped_pairs, kept_pairs, leak_gallery
from pipeline.page.style import STYLE
from pipeline.page.tables import funnel_table, leaks_table, number, overlap_table, reasons_table

GENERATOR = '<meta name="generator" content="rs5m-build report">'
"""By this a page is known for one of ours."""

_WHAT = {"pub11": "web pairs", "rs3": "archives"}
_Section = tuple[str, str, list[Html]]


def report_page(report: Mapping[str, Any], facts: Facts | None, album: Album | None) -> str:
    """Return the page.

    Args:
        report: The document of `pipeline.report.make_report`.
        facts: What it shows of copies; None where dedup.cluster has not run.
        album: The pictures of ``facts``.
    """
    sections = [_funnel(report), _reasons(report)]
    sections += [*_copies(report, facts, album)] if facts and album else [_missing()]
    sections.append(_about(report))
    title = f"rs5m-build report: {report['recipe']}"
    links = (element("li", element("a", name, href=f"#{anchor}")) for anchor, name, _ in sections)
    contents = element("nav", element("ul", *links), aria_label="On this page")
    main = element("main", *(_section(*section) for section in sections))
    head = element("header", element("h1", title), *_state(report))
    style = Html(STYLE)
    meta = [
        element("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">'),
        Html(GENERATOR),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="robots", content="noindex"),
        element("title", title),
        element("style", style),
    ]
    body = element("body", head, contents, main)
    return "<!doctype html>\n" + element("html", element("head", joined(meta, "\n")), body, lang="en") + "\n"


def _policy() -> str:
    """Return what a browser may load for the page: its own pictures and the style that stands in it, nothing else."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; img-src 'self'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"


def _section(anchor: str, name: str, content: list[Html]) -> Html:
    return element("section", element("h2", name, id=anchor), *content, "\n", aria_labelledby=anchor)


def _state(report: Mapping[str, Any]) -> Iterator[Html]:
    done = (
        ("good", "Complete.") if report["complete"] else ("bad", "Not complete: rs5m-build status says what is to do.")
    )
    yield element("p", element("span", done[1], class_=done[0]))
    items = []
    for law in report["laws"]:
        state = {True: ("good", "holds"), False: ("bad", "BROKEN"), None: ("dim", "not checked")}[law["ok"]]
        detail = f" {law['detail']}" if law["detail"] else ""
        items.append(element("li", f"law {law['law']}: ", element("span", state[1], class_=state[0]), detail))
    items += [element("li", f"not read, its rows are in no count: {problem}") for problem in report["unreadable"]]
    items += [element("li", f"skipped by run.skip, its rows are in no later step: {name}") for name in report["skip"]]
    yield element("ul", *items)


def _funnel(report: Mapping[str, Any]) -> _Section:
    words = (
        "Read each row from left to right: what a source published, what matched and was downloaded, what left and why "
        "(Remain = Download - all columns after it). A dash: that step has not run yet; 0: it ran and took nothing."
    )
    published = report["recipe"] == "rs5m"
    tables = [
        funnel_table(subset, funnel, with_published=published)
        for subset, funnel in report["funnel"].items()
        if funnel["rows"]
    ]
    return "funnel", "Funnel", [element("p", words), *tables]


def _reasons(report: Mapping[str, Any]) -> _Section:
    words = (
        "Every row that left, by its one reason: dropped by a rule, failed at a step, or deferred, which the next "
        "round tries again. The prefix names the stage."
    )
    return "reasons-why", "Why rows left", [element("p", words), reasons_table(report)]


def _missing() -> _Section:
    words = (
        "dedup.cluster has not run under these settings: there are no clusters, pairs, overlap or leaks to show yet. "
    )
    return "copies", "Copies", [element("p", words, element("code", "rs5m-build run --until dedup"), " makes them.")]


def _copies(report: Mapping[str, Any], facts: Facts, album: Album) -> Iterator[_Section]:
    yield _overlap(report, facts)
    yield _clusters(facts, album)
    yield _dropped(facts, album)
    yield _outside(facts, album)
    yield _disagreed(facts, album)
    if facts.leaks:
        yield _leaks(facts, album)


def _overlap(report: Mapping[str, Any], facts: Facts) -> _Section:
    words = (
        "Row: the source that lost copies; column: the source whose row stayed instead. Each number is rows, with its "
        "share of the row source's inspected images below; the stronger the colour, the greater the share. On the "
        "diagonal are copies within one source; the column all is the funnel's Duplicate Image."
    )
    kept = [subset.upper() for subset in report["funnel"] if subset not in facts.subsets]
    whole = [element("p", f"{' and '.join(kept)} is not deduplicated (dedup.subsets) and not listed.")] if kept else []
    return "sources", "Source against source", [
        element("p", words), *whole, overlap_table(facts.overlap, report, facts.subsets),
    ]  # fmt: skip


def _clusters(facts: Facts, album: Album) -> _Section:
    words = (
        f"The {len(facts.clusters)} clusters with the most rows. Framed is the row that stayed; beside it up to "
        f"{MOST_MEMBERS} of its copies, those that differ most first, each with the proof that ties it to that row, or "
        "to another copy (via)."
    )
    shown = [cluster_gallery(place + 1, cluster, album) for place, cluster in enumerate(facts.clusters)]
    return "clusters", "Largest clusters", [element("p", words), *(shown or [_none("No two rows are copies.")])]


def _dropped(facts: Facts, album: Album) -> _Section:
    words = (
        "Near copies that left, the farthest hashes first, then the greatest difference of thumbnails: the doubtful "
        "ones. Those beyond the radius were found by the brightness of their parts. Left the row that stayed, right "
        "the one that was dropped for it. A pair here that shows two different pictures was dropped wrongly. Each "
        "picture is shown once."
    )
    shown = dropped_pairs(facts.dropped, album) if facts.dropped else _none("No row left as a near copy.")
    return "inside", "Just inside the limits: dropped", [element("p", words), shown]


def _outside(facts: Facts, album: Album) -> _Section:
    words = (
        f"Rows that both stayed although their hashes are only 1 to {BEYOND_BITS} bits farther apart than the radius "
        f"({facts.rule.radius}): the nearest hashes first, then the nearest thumbnails. A pair here that shows one "
        "picture is a copy that was missed. Each picture is shown once."
    )
    shown = kept_pairs(facts.pairs[0], album) if facts.pairs[0] else _none("There is no such pair.")
    return "outside", "Just outside the radius: kept", [element("p", words), _compared(facts.near), shown]


def _disagreed(facts: Facts, album: Album) -> _Section:
    words = (
        "Rows within the radius that both stayed because the second proof said no: their thumbnails differ by more "
        "than the limit, as a whole, in brightness or in their inner part. Those nearest to it first. A pair here "
        "that shows one picture is a copy that was missed."
    )
    shown = kept_pairs(facts.pairs[1], album) if facts.pairs[1] else _none("There is no such pair.")
    content = [element("p", words), _compared(facts.near), shown]
    if agreed := len(facts.near.agreed):
        odd = f"{agreed:,} more pairs are within both limits and both stayed: by dedup's rule there should be none."
        content.append(element("p", odd, class_="bad"))
    return "disagreed", "Inside the radius: kept by their thumbnails", content


def _compared(near: NearSurvivors) -> Html:
    if near.compared == near.rows:
        words = f"All {number(near.rows)} rows that stayed were compared."
    else:
        words = (
            f"A sample: {number(near.compared)} of the {number(near.rows)} rows that stayed were compared, the first "
            "by sample id, which is a fixed random draw. So there are more such pairs than are found here."
        )
    return element("p", words, class_="dim")


def _leaks(facts: Facts, album: Album) -> _Section:
    words = (
        "Images of the build that show an image of an evaluation set, in any rotation or reflection, and how they are "
        "turned against it. They leave, and so does the row that stayed for one of them; one that had left as a copy "
        "is counted here as well, so that the numbers may be greater than the funnel's Leak."
    )
    if facts.leaks is None:
        return "leaks", "Evaluation images", []
    shown = leak_gallery(facts.leaks.shown, album) if facts.leaks.shown else _none("No image of them was found.")
    return "leaks", "Evaluation images", [element("p", words), leaks_table(facts.leaks), shown]


def _about(report: Mapping[str, Any]) -> _Section:
    pictures = (
        "Captions and addresses are strangers' text: cut, and never markup. Pictures are small copies of what is "
        "stored, drawn as they were compared: before any turn that their EXIF asks for. "
    )
    words = (
        pictures,
        element("code", "rs5m-build explain ID"),
        " tells the whole history of a sample by the id below it, and ",
        element("code", "rs5m-build report --json"),
        " gives the numbers to programs.",
    )
    content = [element("p", *words)]
    if report["staged"]:
        items = (element("li", line) for line in report["staged"])
        summary = element("summary", "What is staged in this miniature world")
        content.append(element("details", summary, element("ul", *items)))
    return "about", "About this page", content


def _none(words: str) -> Html:
    return element("p", words, class_="dim")
