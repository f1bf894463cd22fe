"""How the origin may answer a url, and what a build must then say of the row.

Every word here is a key of `EXPECTED`; `origin` implements them.
"""

import struct
import zlib

from pipeline.world.draft import Draft

OK = ("ok", "slow", "redirect", "flaky", "flaky429")
"""Behaviours whose url yields its image in the end."""

EXPECTED: dict[str, str] = {
    "404": "download.http_404",
    "410": "download.http_410",
    "403": "download.http_403",
    "400": "download.http_4xx",
    "html": "download.not_image",
    "svg": "download.not_image",
    "redirect_loop": "download.too_many_redirects",
    "bad_scheme": "download.bad_scheme",
    "too_large": "download.too_large",
    "too_large_undeclared": "download.too_large",
    "short_body": "download.short_body",
    "always500": "download.http_5xx",
    "reset": "download.reset",
    "drip": "download.timeout",
    "refuses": "download.refused",
    "nowhere": "download.dns",
    "empty": "dedup.empty",
    "truncated_file": "dedup.undecodable",
    "huge_pixels": "dedup.too_many_pixels",
}
"""Behaviour to the reason with which its row ends."""

STAGED: dict[str, str] = {
    "404": "the page is gone",
    "410": "the page is gone for good",
    "403": "the server refuses",
    "400": "the server finds the request bad",
    "html": "an HTML page served as image/jpeg",
    "svg": "an SVG drawing served as image/jpeg",
    "redirect_loop": "two urls that redirect to each other",
    "bad_scheme": "redirects to an ftp url",
    "too_large": "30 MiB, declared in Content-Length",
    "too_large_undeclared": "30 MiB, sent without Content-Length",
    "short_body": "the connection closes before the declared length",
    "always500": "the server always fails",
    "reset": "the server closes the connection without an answer",
    "drip": "the server sends a byte now and then, for ever",
    "refuses": "nothing listens there",
    "nowhere": "the name does not exist",
    "empty": "an answer without a body",
    "truncated_file": "a JPEG cut at 60 % of its bytes",
    "huge_pixels": "a PNG header that declares 40000 by 40000 pixels",
}

# Failures that a downloader counts against a host live on hosts of their own: no breaker hits a sound row.
_HOSTS = {"drip": "drip", "reset": "resets", "always500": "broken", "refuses": "refuses", "nowhere": "nowhere"}
_LARGE_BYTES = 30 << 20
_HTML = (
    b"<!DOCTYPE html>\n<html><head><title>Not here</title></head><body><p>This picture has moved.</p></body></html>\n"
)
_SVG = (
    b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">'
    b'<circle cx="32" cy="32" r="30"/></svg>\n'
)


def serve_failure(draft: Draft, behaviour: str, host: str, number: int, intact_file: str) -> str:
    """Let the origin fail one url.

    Args:
        draft: The world.
        behaviour: A key of `EXPECTED`.
        host: Host name without the domain, where the behaviour has no host of its own.
        number: Makes the url distinct.
        intact_file: A JPEG of the world; some behaviours send a part of it.

    Returns:
        The url.
    """
    base = f"http://{_HOSTS.get(behaviour, host)}.rs5m.test"
    url = f"{base}/pictures/{behaviour.replace('_', '-')}-{number:03d}.jpg"
    match behaviour:
        case "html" | "svg":
            file, body = ("images/page.html", _HTML) if behaviour == "html" else ("images/drawing.svg", _SVG)
            draft.files[file] = body
            draft.serve(url, behaviour, file, type="image/jpeg")
        case "truncated_file":
            body = draft.files[intact_file]
            file = intact_file.removesuffix(".jpg") + "-cut.jpg"
            draft.files[file] = body[: len(body) * 6 // 10]
            draft.serve(url, behaviour, file)
        case "huge_pixels":
            draft.files["images/huge-pixels.png"] = _huge_png()
            draft.serve(url, behaviour, "images/huge-pixels.png")
        case "redirect_loop":
            other = url.replace(".jpg", "-again.jpg")
            draft.serve(url, behaviour, location=other, status=302)
            draft.serve(other, behaviour, location=url, status=302)
        case "bad_scheme":
            draft.serve(url, behaviour, location=url.replace("http:", "ftp:", 1), status=302)
        case "too_large" | "too_large_undeclared":
            draft.serve(url, behaviour, intact_file, bytes=_LARGE_BYTES)
        case "short_body" | "drip":
            draft.serve(url, behaviour, intact_file)
        case "refuses" | "nowhere":
            pass  # no server stands behind these names
        case _:
            draft.serve(url, behaviour)
    return url


def _huge_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 64, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
