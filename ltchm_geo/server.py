"""`SceneServer`: compressed scenes as virtual GeoTIFFs over HTTP, for programs on this machine.

It listens on 127.0.0.1 alone, and every path begins with a random token, so that neither the network, nor other users,
nor a web page in the user's browser can read a scene: they would have to guess 128 bits. A page that gets its own
name to point here is refused by the Host header, one that just asks by the Origin and Sec-Fetch-Site headers.

Connections cost nothing while they wait; requests are answered by a few threads, which share decoded tiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from .device import pick_device
from .errors import UsageError
from .server_files import ServedFile, ServedFiles
from .server_http import MAX_HEAD, BadRequestError, Request, Response, matches_etag, parse_range, parse_request
from .tile_cache import DEFAULT_CACHE_BYTES, TileCache

__all__ = ["SceneServer"]

_HOST = "127.0.0.1"
_MAX_CONNECTIONS, _THREADS = 512, 16
_PIECE = 1 << 21  # bytes made and sent at once: what a request takes of memory, however much it asks for
_STRANGER_S, _FRIEND_S, _SEND_S = 10.0, 60.0, 60.0  # seconds to wait for a request, and for the client to take data
_GATHER_S = 0.004

_log = logging.getLogger(__name__)


class SceneServer:
    """Serves scenes until it is told to stop, or nobody has asked for anything in a while.

    Parameters
    ----------
    paths : sequence of paths
        Scenes; each is served as ``NAME.tif``.
    port : int
        0 for any that is free.
    device : str
        Where pixels are decoded.
    idle_s : float or None
        Stop by itself after so many seconds without a request; None: never.
    cors : sequence of str
        Origins such as "http://localhost:8000" whose web pages may read.
    cache_bytes : int
        Decoded pixels to keep, of all scenes together.
    allow_damaged : bool
        Show nodata (or 0) where a tile is damaged, instead of failing.

    Attributes
    ----------
    scenes : tuple of ServedScene
    port : int
    token : str

    Raises
    ------
    ContainerError, WeightsNotFoundError, DeviceError
        A scene cannot be opened, or not decoded here.
    UsageError
        The port is taken, or a scene is nothing a GeoTIFF can hold.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        port: int = 0,
        device: str = "auto",
        idle_s: float | None = None,
        cors: Sequence[str] = (),
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        allow_damaged: bool = False,
    ):
        pick_device(device)  # rather now than at the first pixel, as with weights below
        self.token = secrets.token_urlsafe(16)
        self._idle_s, self._cors = idle_s, frozenset(cors)
        cache = TileCache(cache_bytes, gather=_GATHER_S)
        self._stack = contextlib.ExitStack()
        self._pool = ThreadPoolExecutor(_THREADS, "ltchm-serve")
        self._writers: set[asyncio.StreamWriter] = set()  # one for each connection
        self._requests, self._stopping = 0, False
        self._last_request = time.monotonic()
        try:
            self._socket = self._stack.enter_context(_listen(port))
            self.port: int = self._socket.getsockname()[1]
            base = f"http://{_HOST}:{self.port}/{self.token}"
            files = ServedFiles(paths, base, device, cache, allow_damaged=allow_damaged)
            self._files = self._stack.enter_context(contextlib.closing(files))
        except BaseException:
            self.close()
            raise
        self.scenes = self._files.scenes

    def close(self) -> None:
        """Close scenes and socket."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._stack.close()

    async def serve(self, stop: asyncio.Event) -> str:
        """Serve until `stop` is set ("stopped") or nobody asks any more ("idle"); which of them it was."""
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=MAX_HEAD)
        self._last_request = time.monotonic()
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stopping.done():
                rest = self._rest()
                if rest is not None and rest <= 0:
                    return "idle"
                await asyncio.wait([stopping], timeout=rest)
            return "stopped"
        finally:
            stopping.cancel()
            self._stopping = True
            server.close()
            for writer in self._writers:  # from Python 3.12.1 on, the server waits for those who keep theirs open
                writer.transport.abort()
            await server.wait_closed()

    def _rest(self) -> float | None:
        """Seconds until nobody will have asked for long enough."""
        if self._idle_s is None:
            return None
        return self._idle_s if self._requests else self._last_request + self._idle_s - time.monotonic()

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._stopping:
                writer.transport.abort()
            elif len(self._writers) > _MAX_CONNECTIONS:
                await self._send(writer, Response.text(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"))
            else:
                await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client went away, or takes too long: nobody is left to be told
        except asyncio.CancelledError:
            writer.transport.abort()  # the server stops; asyncio would print what nobody catches
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        patience, keep_alive = _STRANGER_S, True
        while keep_alive:
            keep_alive = False
            try:
                async with asyncio.timeout(patience):
                    request = parse_request(await reader.readuntil(b"\r\n\r\n"))
                parts = self._authorise(request)
            except asyncio.LimitOverrunError:
                too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                await self._send(writer, Response.text(too_large, f"more than {MAX_HEAD} bytes"))
            except BadRequestError as refused:
                response = Response.text(refused.status, str(refused))
                if refused.status == HTTPStatus.METHOD_NOT_ALLOWED:
                    response.headers["Allow"] = "GET, HEAD"
                await self._send(writer, response)
            else:
                patience = _FRIEND_S
                self._requests += 1
                try:
                    keep_alive = await self._answer(request, parts, writer)
                finally:
                    self._requests -= 1
                    self._last_request = time.monotonic()

    def _authorise(self, request: Request) -> list[str]:
        """What is asked for, as the parts of the path behind the token, where the asker may."""
        if request.headers.get("host", "").lower() not in (f"{_HOST}:{self.port}", f"localhost:{self.port}"):
            raise BadRequestError(HTTPStatus.FORBIDDEN, "not the name of this server")
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin not in self._cors and (origin is not None or site in ("cross-site", "same-site")):
            raise BadRequestError(HTTPStatus.FORBIDDEN, "not for this web page; see ltchm serve --cors")
        if request.method not in ("GET", "HEAD", *(["OPTIONS"] if self._cors else [])):
            raise BadRequestError(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")
        parts = request.target.partition("?")[0].split("/")
        if len(parts) < 3 or not hmac.compare_digest(parts[1].encode(), self.token.encode()):
            raise BadRequestError(HTTPStatus.NOT_FOUND, "not found")
        return parts[2:]

    async def _answer(self, request: Request, parts: list[str], writer: asyncio.StreamWriter) -> bool:
        """Answer a request; whether the connection may go on."""
        file = self._files.find(parts)
        response, first, length = self._response(request, parts, file)
        response.headers |= self._cors_headers(request)
        if file is None or response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            await self._send(writer, response, request)
            return request.keep_alive
        if file.size is None:
            return await self._send_made(file, response, request, writer)
        if request.method == "HEAD":
            await self._send(writer, response, request, length)
            return request.keep_alive
        return await self._send_file(file, first, length, response, request, writer)

    def _response(self, request: Request, parts: list[str], file: ServedFile | None) -> tuple[Response, int, int]:
        """The answer, and the first byte and length of the part of the file to send with it."""
        if request.method == "OPTIONS":
            return Response(HTTPStatus.NO_CONTENT), 0, 0
        if parts == ["ping"]:
            return Response.text(HTTPStatus.OK, "ltchm"), 0, 0
        if file is None:
            return Response.text(HTTPStatus.NOT_FOUND, "not found"), 0, 0
        headers = {"ETag": file.etag, "Cache-Control": "private, no-cache"}
        if matches_etag(request.headers.get("if-none-match"), file.etag):
            return Response(HTTPStatus.NOT_MODIFIED, headers), 0, 0
        headers["Content-Type"] = file.media_type
        if file.size is None:
            return Response(HTTPStatus.OK, headers), 0, 0
        headers["Accept-Ranges"] = "bytes"
        wanted = request.headers.get("range") if request.method == "GET" else None
        if request.headers.get("if-range", file.etag) != file.etag:
            wanted = None
        try:
            span = parse_range(wanted, file.size)
        except BadRequestError as refused:
            error = Response.text(refused.status, str(refused))
            error.headers["Content-Range"] = f"bytes */{file.size}"
            return error, 0, 0
        if span is None:
            return Response(HTTPStatus.OK, headers), 0, file.size
        first, length = span
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{file.size}"
        return Response(HTTPStatus.PARTIAL_CONTENT, headers), first, length

    def _cors_headers(self, request: Request) -> dict[str, str]:
        origin = request.headers.get("origin")
        if origin is None or origin not in self._cors:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, HEAD",
            "Access-Control-Allow-Headers": "Range, If-None-Match, If-Range",
            "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
            "Vary": "Origin",
        }

    async def _send_file(
        self,
        file: ServedFile,
        first: int,
        length: int,
        response: Response,
        request: Request,
        writer: asyncio.StreamWriter,
    ) -> bool:
        begun = False
        for offset in range(first, first + length, _PIECE):
            try:
                piece = await self._made(file, offset, min(_PIECE, first + length - offset))
            except BadRequestError as failed:
                if begun:  # too late to say so: the client must notice that bytes are missing
                    writer.transport.abort()
                    return False
                await self._send(writer, Response.text(failed.status, str(failed)), request)
                return request.keep_alive
            if not begun:
                writer.write(response.head(length, request.keep_alive))
                begun = True
            writer.write(piece)
            await self._drain(writer)
        return request.keep_alive

    async def _send_made(
        self, file: ServedFile, response: Response, request: Request, writer: asyncio.StreamWriter
    ) -> bool:
        try:
            response.body = await self._made(file, 0, 0)
        except BadRequestError as failed:
            response = Response.text(failed.status, str(failed))
        await self._send(writer, response, request)
        return request.keep_alive

    async def _made(self, file: ServedFile, offset: int, length: int) -> bytes:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, file.read, offset, length)
        except Exception as error:  # whatever it is, the client is told, and the server lives on
            _log.warning("%s", error)
            raise BadRequestError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        response: Response,
        request: Request | None = None,
        length: int | None = None,
    ) -> None:
        """A whole answer; to nobody in particular, before the connection is closed, where there is no request."""
        keep_alive, method = (request.keep_alive, request.method) if request else (False, "GET")
        head = response.head(len(response.body) if length is None else length, keep_alive)
        writer.write(head + (b"" if method == "HEAD" else response.body))
        await self._drain(writer)

    async def _drain(self, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_SEND_S):
            await writer.drain()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port), backlog=_MAX_CONNECTIONS)
    except OSError as error:
        raise UsageError(f"port {port} cannot be used: {error.strerror or error}; choose another, or none") from error
