"""As much of HTTP/1.1 as a read-only server of files needs (RFC 9110, 9112). Strict: what is odd is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

__all__ = ["MAX_HEAD", "BadRequestError", "Request", "Response", "matches_etag", "parse_range", "parse_request"]

#: Bytes of request line and headers together.
MAX_HEAD = 1 << 14
_MAX_HEADERS = 64
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,2047}) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~]*?)[ \t]*")
_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")
#: Headers that lists may spread over several lines; of any other, a second one is an attempt to confuse.
_REPEATABLE = {"accept", "accept-encoding", "accept-language", "cache-control", "cookie", "connection", "if-none-match"}


class BadRequestError(Exception):
    """A request that is not served; `status` says why."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """A request without a body."""

    method: str
    target: str
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass
class Response:
    """Status, headers and, unless it is made piece by piece, the body of an answer."""

    status: HTTPStatus
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def text(cls, status: HTTPStatus, message: str) -> Response:
        """A line of text, as errors are told."""
        return cls(status, {"Content-Type": "text/plain; charset=utf-8"}, f"{message}\n".encode())

    def head(self, length: int, keep_alive: bool) -> bytes:
        """Status line and headers for a body of `length` bytes."""
        headers = {
            "Date": formatdate(usegmt=True),
            "Connection": "keep-alive" if keep_alive else "close",
            **({} if self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED) else {"Content-Length": length}),
            "X-Content-Type-Options": "nosniff",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("ascii")


def parse_request(head: bytes) -> Request:
    """Parse request line and headers, the empty line at their end included.

    Raises
    ------
    BadRequestError
    """
    try:
        first, *lines = head.removesuffix(b"\r\n\r\n").decode("ascii").split("\r\n")
    except UnicodeDecodeError as error:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "headers are not ASCII") from error
    if (line := _REQUEST_LINE.fullmatch(first)) is None:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "not an HTTP/1.1 request for a path")
    if len(lines) > _MAX_HEADERS:
        raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {_MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for text in lines:
        if (header := _HEADER.fullmatch(text)) is None:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, "malformed header")
        name, value = header[1].lower(), header[2]
        if name in headers and name not in _REPEATABLE:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, f"more than one {name} header")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "requests with a body are not served")
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keep_alive = "close" not in options and (line[3] == "1" or "keep-alive" in options)
    return Request(line[1], line[2], headers, keep_alive)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length that a Range header asks of `size` bytes; None for all of them.

    One range is served, several are refused, as RFC 9110 lets a server do.

    Raises
    ------
    BadRequestError
        416 where the range is none, lies behind the end, or is more than one.
    """
    if header is None or not header.startswith("bytes="):  # units we do not know must be ignored
        return None
    found = _RANGE.fullmatch(header)
    if found is None or found[1] == found[2] == "":
        raise BadRequestError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "one range bytes=FIRST-LAST is served")
    if found[1] == "":
        first, stop = max(0, size - int(found[2])), size
    else:
        first, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
    if first >= stop:
        raise BadRequestError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"no such bytes: there are {size}")
    return first, stop - first


def matches_etag(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this entity tag."""
    if header is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in tags or etag in tags
