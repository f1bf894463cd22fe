"""What the origin does for each behaviour word of routes.json."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

_TYPES = {
    "jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp",
    "tif": "image/tiff",
}  # fmt: skip
_DRIP_S = 0.2
_DRIP_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_MISSING_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """One request and the route that it met.

    Attributes:
        http: The request.
        route: Its entry of routes.json.
        read: Returns the bytes of a file of the world.
        times: How often the url was asked for since the server started, this one included.
    """

    http: web.BaseRequest
    route: Mapping[str, Any]
    read: Callable[[str], bytes]
    times: int

    @property
    def body(self) -> bytes:
        """The file's bytes."""
        return self.read(self.route["file"])

    @property
    def media_type(self) -> str:
        """What the server claims the file is."""
        file = str(self.route["file"])
        return str(self.route.get("type") or _TYPES.get(file.rpartition(".")[2], "application/octet-stream"))


async def _file(request: Request) -> web.StreamResponse:
    body = request.body
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return web.Response(body=body, content_type=request.media_type, headers={"ETag": etag})


async def _slow(request: Request) -> web.StreamResponse:
    await asyncio.sleep(request.route["delay_s"])
    return await _file(request)


async def _redirect(request: Request) -> web.StreamResponse:
    return web.Response(status=request.route["status"], headers={"Location": request.route["location"]})


async def _flaky(request: Request) -> web.StreamResponse:
    return web.Response(status=503) if request.times == 1 else await _file(request)


async def _flaky429(request: Request) -> web.StreamResponse:
    return web.Response(status=429, headers={"Retry-After": "0"}) if request.times == 1 else await _file(request)


async def _empty(request: Request) -> web.StreamResponse:
    del request
    return web.Response(body=b"", content_type="image/jpeg")


async def _reset(request: Request) -> web.StreamResponse:
    if request.http.transport:
        request.http.transport.abort()
    return web.Response()


async def _short_body(request: Request) -> web.StreamResponse:
    body = request.body
    response = web.StreamResponse(headers={"Content-Type": request.media_type})
    response.content_length = len(body) + _MISSING_BYTES
    response.force_close()
    await response.prepare(request.http)
    await response.write(body)
    if request.http.transport:
        request.http.transport.close()  # sends what is buffered first
    return response


async def _drip(request: Request) -> web.StreamResponse:
    body = request.body
    response = web.StreamResponse(headers={"Content-Type": request.media_type})
    response.content_length = _DRIP_BYTES
    await response.prepare(request.http)
    try:
        sent = 0
        while request.http.transport and not request.http.transport.is_closing():
            await response.write(body[sent % len(body) :][:1])
            sent += 1
            await asyncio.sleep(_DRIP_S)
    except ConnectionError:
        pass  # the client has had enough
    return response


async def _too_large(request: Request) -> web.StreamResponse:
    return await _large(request, declared=True)


async def _too_large_undeclared(request: Request) -> web.StreamResponse:
    return await _large(request, declared=False)


async def _large(request: Request, *, declared: bool) -> web.StreamResponse:
    left = int(request.route["bytes"])
    response = web.StreamResponse(headers={"Content-Type": request.media_type})
    if declared:
        response.content_length = left
    else:
        response.enable_chunked_encoding()
    chunk = request.body[:_CHUNK_BYTES].ljust(_CHUNK_BYTES, b"\0")  # begins like the image it claims to be
    try:
        await response.prepare(request.http)
        while left:
            await response.write(chunk[:left])
            left -= min(left, len(chunk))
    except ConnectionError:
        pass  # the client has had enough
    return response


def _status(status: int) -> Callable[[Request], Awaitable[web.StreamResponse]]:
    async def answer(request: Request) -> web.StreamResponse:
        del request
        return web.Response(status=status, text=f"{status}\n")

    return answer


ANSWERS: Mapping[str, Callable[[Request], Awaitable[web.StreamResponse]]] = {
    "ok": _file,
    "html": _file,
    "svg": _file,
    "truncated_file": _file,
    "huge_pixels": _file,
    "slow": _slow,
    "redirect": _redirect,
    "redirect_loop": _redirect,
    "bad_scheme": _redirect,
    "flaky": _flaky,
    "flaky429": _flaky429,
    "empty": _empty,
    "reset": _reset,
    "short_body": _short_body,
    "drip": _drip,
    "too_large": _too_large,
    "too_large_undeclared": _too_large_undeclared,
    "404": _status(404),
    "410": _status(410),
    "403": _status(403),
    "400": _status(400),
    "always500": _status(500),
}
"""Behaviour word to what answers it."""
