"""Just enough of a headless Chromium for a test: open a page, wait for its title, take a picture of it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, where there is none
    "--no-proxy-server",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--remote-debugging-pipe",
)


class Browser:
    """Speaks Chromium's DevTools protocol over the pipes it has as file descriptors 3 and 4."""

    def __init__(self, to_browser: int, from_browser: int):
        self._to, self._from, self._buffer, self._number = to_browser, from_browser, b"", 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        return self._call("Runtime.evaluate", expression=expression)["result"].get("value")

    def wait_for_title(self, *parts: str, seconds: float) -> str:
        """The page's title, once it contains one of the parts; whatever it is when time is up."""
        end = time.monotonic() + seconds
        while not any(part in (title := str(self.evaluate("document.title"))) for part in parts):
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        return title

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._next())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> bytes:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], 60)[0], "the browser does not answer"
            data = os.read(self._from, 1 << 16)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return message


@contextlib.contextmanager
def browser(program: str, profile: Path, size: tuple[int, int]) -> Iterator[Browser]:
    """A browser with a window of width x height, and a profile that is thrown away."""
    its_input, to_browser = os.pipe()
    from_browser, its_output = os.pipe()

    def as_3_and_4() -> None:
        high = [os.dup(its_input), os.dup(its_output)]  # lest one of them is 3 or 4 already
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    command = [program, *_OPTIONS, f"--user-data-dir={profile}", "--window-size={},{}".format(*size)]
    process = subprocess.Popen(
        command,
        preexec_fn=as_3_and_4,  # noqa: PLW1509  # only duplicates descriptors, which is safe beside threads
        close_fds=False,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_input)
    os.close(its_output)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        process.terminate()
        process.wait(20)
        os.close(to_browser)
        os.close(from_browser)
