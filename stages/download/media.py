"""Telling what a body is from its first bytes; what the server calls it is not believed."""

HEAD_BYTES = 64
"""How many bytes settle what a body is."""

# "BM" alone is two letters of text; the DIB header sizes that exist make it an image.
_DIB_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_OTHER_FTYP = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}
_OTHER_MAGIC = (
    (b"%PDF", "PDF"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"\0\0\x01\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)


def sniff(head: bytes) -> str | None:
    """Name the image format that a body begins like.

    Args:
        head: The first bytes of the body, 64 or all there are.

    Returns:
        jpeg, png, webp, gif, bmp or tiff; None for everything else.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith(_TIFF):
        return "tiff"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _DIB_SIZES:
        return "bmp"
    return None


def describe(head: bytes) -> str:
    """Say in a word or two what a body looks like; for people, never for decisions.

    Args:
        head: The first bytes of the body; a kilobyte tells HTML behind comments apart.

    Returns:
        A name such as "JPEG", "HTML", "AVIF", "text", or "unknown bytes" with the first four in hex.
    """
    if not head:
        return "nothing"
    known = sniff(head)
    if known is not None:
        return known.upper()
    if head[4:8] == b"ftyp":
        return _OTHER_FTYP.get(head[8:12], "ISO media (video)")
    for magic, name in _OTHER_MAGIC:
        if head.startswith(magic):
            return name
    return _describe_text(head)


def _describe_text(head: bytes) -> str:
    text = head[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "SVG"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")) or b"<html" in text:
        return "HTML"
    if text.startswith(b"<?xml"):
        return "XML"
    if text.startswith((b"{", b"[")):
        return "JSON"
    if all(byte >= 0x20 or byte in b"\t\r\n\f" for byte in head[:HEAD_BYTES]):
        return "text"
    return f"unknown bytes {head[:4].hex()}"
