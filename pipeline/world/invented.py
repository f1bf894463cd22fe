"""Numbers of metadata rows that stand for nothing: made up by key, so that they are the same in every build."""

from manifests.identity import draw
from pipeline.world.draft import Row


def invented(row: Row, name: str) -> float:
    """Return an invented number in [0, 1) that belongs to the row; equal rows have equal numbers.

    Args:
        row: The row.
        name: Which number.
    """
    return round(draw(name, row.source, row.url or "", *row.texts), 6)


def size(row: Row) -> tuple[int, int]:
    """Return width and height of what the row shows, in pixels; invented where it shows nothing."""
    if row.image:
        return row.image.width, row.image.height
    return 200 + int(invented(row, "width") * 1000), 200 + int(invented(row, "height") * 800)
