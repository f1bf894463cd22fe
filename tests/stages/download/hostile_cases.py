"""What the hostile hosts do, the urls that lead to them, and the reasons that their rows leave for."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.stages.download.hostile_server import Asked, Play, endless, in_turn, page, send, torn

MAX_BYTES = 500_000


def picture(seed: int, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC).convert(mode).save(out, kind)
    return out.getvalue()


def deep_png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 50).save(out, "PNG")
    return out.getvalue()


def dot() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (1, 1), (9, 9, 9)).save(out, "PNG")
    return out.getvalue()


def moving_gif() -> bytes:
    out = io.BytesIO()
    first, *others = (Image.open(io.BytesIO(picture(seed))).convert("P") for seed in (31, 32, 33))
    first.save(out, "GIF", save_all=True, append_images=others, duration=50)
    return out.getvalue()


def deflated_zeros(megabytes: int, wbits: int, begin: bytes = b"") -> bytes:
    squeeze, million = zlib.compressobj(6, zlib.DEFLATED, wbits), bytes(1_000_000)
    return squeeze.compress(begin) + b"".join(squeeze.compress(million) for _ in range(megabytes)) + squeeze.flush()


def png_bomb(side: int) -> bytes:
    """A square of one bit a pixel: 50 kB here, side * side bytes in memory."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = chunk(b"IDAT", deflated_zeros(side * (side // 8 + 1) // 1_000_000 + 1, 15))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def jpeg_bomb() -> bytes:
    """A small JPEG that calls itself 65,500 x 65,500 pixels large: 13 GB in memory."""
    body = bytearray(picture(34))
    frame = body.index(b"\xff\xc0")
    body[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(body)


def gif_bomb() -> bytes:
    return b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + picture(35, "GIF", "P")[10:]


JPEG, PNG = picture(1), picture(2, "PNG")
SHORT = picture(3)
HALF = len(SHORT) // 2
LONG = picture(14)
GONE = picture(4, "PNG")
HTML = b"<!DOCTYPE html><html><body>gone</body></html>" * 30
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200)
OK = b"HTTP/1.1 200 OK\r\n"
SHORTENED = OK + b"Content-Length: %d\r\n\r\n" % HALF + SHORT[:HALF]
FLOOD = b"".join(b"X-%d: y\r\n" % n for n in range(20_000))


def location(to: str, *headers: str) -> Play:
    return send(page(b"", f"Location: {to}", *headers, status="302 Found"))


def image(body: bytes, *headers: str) -> Play:
    return send(page(body, *headers))


async def smuggle(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Redirect, and put an answer behind it that nobody asked for."""
    real = asked.target.startswith("/real")
    moved = page(b"", f"Location: /real{asked.target}", status="302 Found")
    writer.write(page(picture(13)) if real else moved + page(JPEG))


# One host each: `http://NAME.web.test/x.jpg`, what it does, and the reason that its row leaves for; None: it is kept.
CASES: dict[str, tuple[Play, str | None]] = {
    # time
    "slow-drip": (
        endless(OK + b"Content-Length: 90000\r\n\r\n" + JPEG[:90], JPEG[90:91], pause_s=0.05),
        "download.timeout",
    ),
    "slow-headers": (endless(OK, b"X: y\r\n", pause_s=0.05), "download.timeout"),
    "silence": (send(pause_s=9.0), "download.timeout"),
    "silence-in-the-body": (send(OK + b"Content-Length: 9000\r\n\r\n" + JPEG[:99], pause_s=9.0), "download.timeout"),
    "endless-early-hints": (
        endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 10, 0.01),
        "download.timeout",
    ),
    # size
    "endless-body": (endless(OK + b"\r\n" + JPEG, bytes(16_384)), "download.too_large"),
    "endless-chunks": (
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n\xff\xd8\xff\r\n", b"4000\r\n" + bytes(0x4000) + b"\r\n"),
        "download.too_large",
    ),
    "endless-text": (endless(OK + b"\r\n", b"never mind " * 999), "download.not_image"),
    "gzip-bomb": (
        image(deflated_zeros(300, 31, JPEG), "Content-Encoding: gzip"),
        "download.too_large",
    ),
    "length-said-to-be-huge": (send(OK + b"Content-Length: 99999999999999\r\n\r\n" + JPEG), "download.too_large"),
    "png-bomb": (image(png_bomb(12_000)), "dedup.too_many_pixels"),
    "larger-png-bomb": (image(png_bomb(20_000)), "dedup.too_many_pixels"),
    "jpeg-bomb": (image(jpeg_bomb()), "dedup.too_many_pixels"),
    "gif-bomb": (image(gif_bomb()), "dedup.too_many_pixels"),
    "header-flood": (send(OK + FLOOD + b"\r\n", close=True), "download.reset"),
    "endless-header": (endless(OK + b"X: ", b"x" * 4096), "download.reset"),
    # lengths and endings
    "length-too-short": (send(SHORTENED + SHORT[HALF:]), "download.reset"),
    "length-too-short-then-more": (send(SHORTENED, SHORT[HALF:], pause_s=0.1), "dedup.undecodable"),
    "length-too-long": (
        send(OK + b"Content-Length: %d\r\n\r\n" % (len(JPEG) + 9) + JPEG, close=True),
        "download.short_body",
    ),
    "length-too-long-and-open": (
        send(OK + b"Content-Length: %d\r\n\r\n" % (len(JPEG) + 9) + JPEG, pause_s=9.0),
        "download.timeout",
    ),
    "body-goes-on": (
        send(OK + b"Content-Length: %d\r\n\r\n" % len(LONG) + LONG[:HALF], LONG[HALF:] + b"surplus", pause_s=0.1),
        None,
    ),
    "length-no-number": (send(OK + b"Content-Length: many\r\n\r\n" + JPEG, close=True), "download.reset"),
    "length-below-zero": (send(OK + b"Content-Length: -1\r\n\r\n" + JPEG, close=True), "download.reset"),
    "reset-mid-body": (torn(OK + b"Content-Length: 9000\r\n\r\n" + JPEG), "download.short_body"),
    "reset-at-once": (torn(), "download.reset"),
    "not-http": (send(b"SSH-2.0-OpenSSH\r\n\r\n", close=True), "download.reset"),
    "gzip-that-is-none": (image(JPEG, "Content-Encoding: gzip"), "download.not_image"),
    "gzip-cut": (image(gzip.compress(JPEG)[:-20], "Content-Encoding: gzip"), "download.short_body"),
    "brotli": (image(JPEG, "Content-Encoding: br"), "download.not_image"),
    # what the bytes are
    "plain": (image(JPEG), None),
    "one-pixel": (image(dot()), None),
    "truncated-jpeg": (image(picture(5)[:-400]), "dedup.undecodable"),
    "html-as-jpeg": (image(HTML, "Content-Type: image/jpeg"), "download.not_image"),
    "html-behind-jpeg-magic": (image(b"\xff\xd8\xff\xe0" + HTML), "dedup.undecodable"),
    "empty-200": (image(b"", "Content-Type: image/jpeg"), "dedup.empty"),
    "svg": (image(SVG, "Content-Type: image/jpeg"), "download.not_image"),
    "avif": (image(AVIF, "Content-Type: image/avif"), "download.not_image"),
    "webp": (image(picture(6, "WEBP")), None),
    "cmyk-jpeg": (image(picture(7, mode="CMYK")), None),
    "deep-png": (image(deep_png()), None),
    "animated-gif": (image(moving_gif()), None),
    # redirects
    "redirect-loop": (location("/x.jpg"), "download.too_many_redirects"),
    "ping": (location("http://pong.web.test/x.jpg"), "download.too_many_redirects"),
    "pong": (location("http://ping.web.test/x.jpg"), "download.too_many_redirects"),
    "redirect-to-file": (location("file:///etc/passwd"), "download.bad_scheme"),
    "redirect-to-ftp": (location("ftp://ftp.web.test/x.jpg"), "download.bad_scheme"),
    "redirect-to-data": (location("data:image/png;base64,iVBORw0KGgo="), "download.bad_scheme"),
    "redirect-to-no-url": (location("http://[::1"), "download.bad_scheme"),
    # statuses
    "busy-then-well": (in_turn(page(b"", "Retry-After: 1", status="429 Too Many Requests"), page(picture(8))), None),
    "busy-for-hours": (send(page(b"", "Retry-After: 7200", status="429 Too Many Requests")), "download.http_429"),
    "broken-then-well": (in_turn(page(b"", status="500 Internal Server Error"), page(picture(9))), None),
    "broken": (send(page(HTML, status="500 Internal Server Error")), "download.http_5xx"),
    "continue-first": (send(b"HTTP/1.1 100 Continue\r\n\r\n" + page(picture(10))), None),
    "early-hints-first": (send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + page(picture(11))), None),
    "switching-protocols": (
        send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + JPEG, close=True),
        "download.http_4xx",
    ),
    # consent
    "robots-disallow": (image(JPEG), "download.opt_out"),
    "redirect-to-disallowed": (location("http://robots-disallow.web.test/y.jpg"), "download.opt_out"),
    "robots-503": (image(JPEG), "download.http_5xx"),
    "noai": (image(JPEG, "X-Robots-Tag: noai"), "download.opt_out"),
    "tdm": (image(JPEG, "tdm-reservation: 1"), "download.opt_out"),
    "noai-on-the-way": (location("http://behind-noai.web.test/x.jpg", "X-Robots-Tag: noai"), "download.opt_out"),
    "behind-noai": (image(JPEG), None),
    # what we send
    "cookies": (
        in_turn(page(b"", "Set-Cookie: id=7; Path=/", "Location: /x.jpg", status="302 Found"), page(picture(12))),
        None,
    ),
}

OTHERS: dict[str, tuple[str, Play, str | None]] = {
    "bad-tls": ("https://self-signed.tls.test/x.jpg", image(JPEG), "download.tls"),
    "no-tls": ("https://no-tls.web.test/x.jpg", image(JPEG), "download.timeout"),
    "unicode-path": (
        "http://unicode.web.test/Gr\u00f6\u00dfe \u56fe\u7247/\U0001f6f0?q=\u00e9 \u200b", image(JPEG), None
    ),
    "unicode-host": ("http://b\u00fccher.web.test/x.jpg", image(JPEG), None),
    "control-characters": ("http://control.web.test/a\r\nX-Evil: 1\r\n\r\n", image(JPEG), None),
    "very-long-url": (f"http://long.web.test/{'x' * 8192}.jpg", image(PNG), None),
    "file-name-in-url": ("http://name.web.test/../../../etc/cron.d/x;rm -rf ~.jpg", image(PNG), None),
    "credentials": ("http://me:hunter2@credentials.web.test/x.jpg", image(JPEG), None),
    "file-url": ("file:///etc/passwd", image(JPEG), "download.bad_scheme"),
    "no-such-name": ("http://gone.test/x.jpg", image(JPEG), "download.dns"),
    "hash-right": ("http://hashed.web.test/1", image(PNG), None),
    "hash-wrong": ("http://hashed.web.test/2", image(PNG), None),
}  # fmt: skip
OTHERS |= {f"smuggled-{n}": (f"http://smuggler.web.test/{n}", smuggle, None) for n in range(6)}
OTHERS |= {f"same-{n}": (f"http://same{n}.web.test/{n}.png", image(GONE), None) for n in range(12)}

REASONS: dict[str, str | None] = {name: reason for name, (_, reason) in CASES.items()} | {
    name: case[2] for name, case in OTHERS.items()
}
HASHES = {"hash-right": hashlib.sha256(PNG).hexdigest(), "hash-wrong": "0" * 64}
ROBOTS = {
    "robots-disallow": page(b"User-agent: *\nDisallow: /\n", "Set-Cookie: robot=1; Path=/"),
    "robots-503": page(status="503 Service Unavailable"),
    "cookies": page(b"User-agent: *\nAllow: /\n", "Set-Cookie: robot=1; Path=/"),
}


def plays() -> dict[str, Play]:
    """By the first label of the host."""
    found = {name: play for name, (play, _) in CASES.items()}
    for url, play, _ in OTHERS.values():
        label = url.partition("://")[2].rpartition("@")[2].split(".")[0].encode("idna" if "\u00fc" in url else "utf-8")
        found.setdefault(label.decode(), play)
    return found
