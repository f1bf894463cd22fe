"""The pictures of a build's page: the largest clusters, pairs at the edge of the radius, evaluation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.clusters import Cluster, Member
from pipeline.page.cards import Card
from pipeline.page.facts import Leak
from pipeline.page.html_elements import Html, cut, element, link
from pipeline.page.near_survivors import Pair
from pipeline.page.small_pictures import SmallPicture
from pipeline.second_proof import Rule
from stages.dedup.second_proof import BRIGHTNESS_LEVELS

FOLDER = "img"
_TEXT_CHARACTERS = 200
_ALT_CHARACTERS = 100
_URL_CHARACTERS = 60
_ITEM_CHARACTERS = 120
_VIA_DIGITS = 8
_PROOFS = {"url": "same url", "bytes": "same bytes"}
_VIEWS = 4


@dataclass(frozen=True, slots=True)
class Album:
    """What is known of the samples on the page.

    Attributes:
        cards: By sample id.
        pictures: By sha256: the small copy, or why there is none.
        names: Of sources, by key.
        rule: What near pairs were judged against.
        leaked: Samples that would have stayed and left as evaluation images.
    """

    cards: Mapping[str, Card]
    pictures: Mapping[str, SmallPicture | str]
    names: Mapping[str, str]
    rule: Rule
    leaked: frozenset[str] = frozenset()

    def limit(self, one: str, other: str, bits: int) -> float:
        """Return the limit for the thumbnails of two samples whose hashes are so far apart, grey levels."""
        return self.rule.limit(self.cards[one].texture, self.cards[other].texture, bits)


def cluster_gallery(number: int, cluster: Cluster, album: Album) -> Html:
    """Return one cluster: the row that stayed, then some of its copies."""
    rest = cluster.rows - 1 - len(cluster.members)
    figures = [_leader(cluster.leader, album)]
    figures += [_figure(member.sample_id, album, _tie(member, album)) for member in cluster.members]
    more = [element("p", f"and {rest:,} more", class_="dim")] if rest else []
    title = f"{number}. {cluster.rows:,} rows of one picture"
    shown = element("ul", *(element("li", figure) for figure in figures), class_="cards")
    return element("section", element("h3", title), shown, *more)


def dropped_pairs(members: Sequence[Member], album: Album) -> Html:
    """Return near copies, each beside the row that it was dropped for."""
    return _pairs(
        [
            (_near(m, album), _leader(m.via, album), _figure(m.sample_id, album, "dropped"))
            for m in members
        ]
    )  # fmt: skip


def kept_pairs(pairs: Sequence[Pair], album: Album) -> Html:
    """Return pairs of which both rows stayed."""
    return _pairs(
        [
            (_kept_apart(pair, album),
             _leader(pair.first, album),
             _leader(pair.second, album))
            for pair in pairs
        ]
    )  # fmt: skip


def leak_gallery(leaks: Sequence[Leak], album: Album) -> Html:
    """Return images that show one of an evaluation set, with its name there."""
    return element("ul", *(element("li", _leak(leak, album)) for leak in leaks), class_="cards")


def view_words(view: int) -> str:
    """Return how an image is turned against the item that it shows (`stages.phash.phash_d4`)."""
    turned = f"turned left by {view % _VIEWS * 90} degrees" if view % _VIEWS else ""
    mirrored = "mirrored" if view >= _VIEWS else ""
    return ", then ".join(part for part in (mirrored, turned) if part) or "as it is"


def _leak(leak: Leak, album: Album) -> Html:
    item = element("bdi", f"{leak.benchmark}: {cut(leak.item, _ITEM_CHARACTERS)}")
    how = element("span", f"{_bits(leak.distance)} apart, radius {album.rule.radius}, {view_words(leak.view)}")
    return _figure(leak.sample_id, album, "", item, how)


def _pairs(pairs: Sequence[tuple[str, Html, Html]]) -> Html:
    shown = (
        element("li", element("p", words), element("div", one, other, class_="two")) for words, one, other in pairs
    )
    return element("ul", *shown, class_="pairs")


def _leader(identity: str, album: Album) -> Html:
    if identity in album.leaked:
        return _figure(identity, album, "left in the end: an evaluation image")
    return _figure(identity, album, "stays", class_="stays")


def _tie(member: Member, album: Album) -> str:
    words = _PROOFS.get(member.proof, member.proof) if member.proof != "near" else f"near: {_near(member, album)}"
    return words if member.via == member.leader else f"{words}; via {member.via[:_VIA_DIGITS]}"


def _near(member: Member, album: Album) -> str:
    bits = member.distance or 0
    return _apart(bits, member.confirm, album.limit(member.sample_id, member.via, bits), album)


def _kept_apart(pair: Pair, album: Album) -> str:
    words = _apart(pair.distance, pair.confirm, pair.limit, album)
    if album.rule.proof is None or pair.agrees or pair.limit < 0:
        return words
    if pair.brightness > BRIGHTNESS_LEVELS:
        return f"{words}; brightness by {pair.brightness:.3g}, limit {BRIGHTNESS_LEVELS:g}"
    return words if pair.confirm > pair.limit else f"{words}; but the inner part by more than its own limit"


def _apart(bits: int, confirm: float | None, limit: float, album: Album) -> str:
    words = f"{_bits(bits)} apart, radius {album.rule.radius}"
    if album.rule.proof is None or confirm is None:
        return words
    if limit < 0:
        return f"{words}; too little to see for a proof by thumbnails"
    return f"{words}; thumbnails differ by {confirm:.4g} levels, limit {limit:.4g}"


def _bits(distance: int) -> str:
    return f"{distance} bit" if distance == 1 else f"{distance} bits"


def _figure(identity: str, album: Album, words: str, *more: Html, class_: str = "") -> Html:
    card = album.cards[identity]
    source = album.names.get(card.source, card.source) or "source not known"
    size = f"{card.width} x {card.height}" if card.width else ""
    lines = [element("strong", source), *([element("span", words)] if words else []), *more]
    if card.text:
        lines.append(element("bdi", cut(card.text, _TEXT_CHARACTERS), class_="text"))
    if card.url:
        lines.append(element("span", link(card.url, _URL_CHARACTERS)))
    lines += [element("span", size, class_="dim")] if size else []
    lines.append(element("code", identity))
    named = {"class_": class_} if class_ else {}
    return element("figure", _picture(card, source, album), element("figcaption", *lines), **named)


def _picture(card: Card, source: str, album: Album) -> Html:
    found = album.pictures[card.place.sha256] if card.place else "no image is known of it"
    if isinstance(found, str):
        return element("p", found, class_="gone")
    alt = f"{source}: {cut(card.text, _ALT_CHARACTERS)}" if card.text else f"{source}, without a caption"
    return element(
        "img", src=f"{FOLDER}/{found.name}.jpg", alt=alt, width=found.width, height=found.height, loading="lazy"
    )
