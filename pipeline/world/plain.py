"""Rows that match no keyword: invented captions, and traps that come close to one."""

from manifests.identity import draw
from pipeline.world.draft import Row, choose, texts_for

TRAPS = (
    "Aerial acrobat swings above the crowd",
    "Aerial slow motion of a skateboarder in the park",
    "Satellite dish on a garden shed",
    "Commuters in a satellite town at dawn",
    "Spaceship images for a birthday party",
    "Workspace images for your home office",
    "A shelf of books by V. S. NAIPaul",
    "Landscape with two cows and a mill",
    "MODISTE at work on a summer hat",
    "Maxarena, a new sports hall for the village",
    "Remote sensor for a garage door, two pack",
    "Vue a\u00e9rienne du port de Marseille",
    "Earth-moving machine, yellow, scale model",
    "Spaces images, 12 colours",
    "Geographic information for hikers",
    "Planet Doves, the debut album",
)
"""Texts within reach of a keyword that match none."""

_SIZES = ("small", "large", "old", "new", "blue", "green", "wooden", "round", "quiet", "bright", "plain", "folded")
_THINGS = (
    "teapot", "bicycle", "garden chair", "kitchen table", "wedding cake", "mountain hut", "fishing boat",
    "running shoe", "winter coat", "guitar", "birthday card", "front door", "city tram", "puppy", "sleeping cat",
    "bowl of soup", "leather bag", "book cover", "coffee cup", "paper lamp",
)  # fmt: skip
_PLACES = (
    "on a white background", "in the afternoon sun", "at the market", "by the window", "in a small town", "for sale",
    "in the living room", "beside the river", "under an apple tree", "with free shipping", "in black and white",
    "at the harbour", "near the station", "after the rain", "at a family party",
)  # fmt: skip
_SHOPS = ("shop", "store", "blog", "news", "albums", "cdn", "photos")


def plain_rows(source: str, count: int) -> list[Row]:
    """Return rows of one source whose text matches no keyword; their urls are never asked for.

    Args:
        source: Source key.
        count: How many; about one in forty is a trap.
    """
    rows = []
    for number in range(count):
        key = ("plain", source, number)
        texts = tuple(_text(*key, turn) for turn in range(3))
        staged = None
        if number % 40 == 5:
            texts = (TRAPS[(number // 40 + len(source)) % len(TRAPS)], *texts[1:])
            staged = "comes close to a keyword"
        host = choose(_SHOPS, *key, "host")
        url = f"http://{host}.rs5m.test/items/{source}-{int(draw(*key) * 1e9):09d}.jpg"
        rows.append(Row(source, url, texts_for(source, texts, 0), False, "filter.no_keyword", staged=staged))
    return rows


def _text(*key: str | int) -> str:
    size, thing = choose(_SIZES, *key, "size"), choose(_THINGS, *key, "thing")
    return f"{size} {thing} {choose(_PLACES, *key, 'place')}".capitalize()
