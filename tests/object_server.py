"""An S3-compatible server for tests, in this process: moto behind werkzeug, with a fault or two to order."""

from __future__ import annotations

import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "scenes"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}

_CREDENTIAL = "Credential=test/20260101/us-east-1/s3/aws4_request"
_OWNER = {"Authorization": f"AWS4-HMAC-SHA256 {_CREDENTIAL}, SignedHeaders=host, Signature=0"}
_OWNER["Content-Type"] = "application/octet-stream"


class _Quiet(WSGIRequestHandler):
    def log(self, *arguments: Any) -> None:
        pass


class ObjectServer:
    """A bucket; `requests` counts what was asked of it, and `fail` may answer a request instead of the server."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.fail: Callable[[str, str, str], int | None] = lambda method, path, query: None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.ask("PUT", f"/{BUCKET}")

    def _answer(self, environ: Any, start: Any) -> Any:
        method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]
        self.requests[method] += 1
        if (status := self.fail(method, path, query)) is not None:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(f"{status} ordered", [("Content-Length", "0")])
            return [b""]
        return self._app(environ, start)

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        """A request as the bucket's owner; moto does not look at signatures."""
        request = urllib.request.Request(self.url + path, data, _OWNER, method=method)
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())

    def listed(self) -> list[str]:
        """All objects."""
        listed = self.ask("GET", f"/{BUCKET}?list-type=2").decode()
        return [part.split("</Key>")[0] for part in listed.split("<Key>")[1:]]

    def uploads(self) -> int:
        """Multipart uploads neither completed nor aborted: they are invisible and cost money."""
        return self.ask("GET", f"/{BUCKET}?uploads").count(b"<Upload>")

    def clear(self) -> None:
        """Empty the bucket."""
        self.fail = lambda method, path, query: None
        for key in self.listed():
            self.ask("DELETE", f"/{BUCKET}/{key}")
        self.requests.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving() -> Iterator[ObjectServer]:
    server = ObjectServer()
    try:
        yield server
    finally:
        server.close()
