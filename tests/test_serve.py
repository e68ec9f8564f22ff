from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from click.testing import CliRunner
from decodable import DECODABLE, pixels, write_decodable
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasters import CHIAPAS, DRONE, FARMLAND, masks_of, pixels_of, write_classes, write_tif

import ltchm_geo
from ltchm_geo import server as server_module
from ltchm_geo.cli.serve import serve as serve_command
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import NotAContainerError, UsageError, WeightsNotFoundError
from ltchm_geo.georef import Georef
from ltchm_geo.georef_rasterio import quiet_open
from ltchm_geo.scene_decoder import SceneDecoder
from ltchm_geo.server import SceneServer
from ltchm_geo.server_http import BadRequestError, parse_range, parse_request
from ltchm_geo.types import TileIndex
from ltchm_geo.virtual_tiff import VirtualTiff


@contextlib.contextmanager
def serving(paths: Sequence[Path], **options: Any) -> Iterator[SceneServer]:
    with contextlib.closing(SceneServer(paths, **options)) as server:
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(stop)))
        thread.start()
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(20)
            loop.close()
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    write_decodable(path / "scene.ltchm")
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[SceneServer]:
    with serving([folder / "scene.ltchm"]) as found:
        yield found


@pytest.fixture(scope="module")
def content(folder: Path) -> bytes:
    """The file that is served."""
    with ContainerReader(folder / "scene.ltchm") as reader:
        file = VirtualTiff(SceneDecoder(reader))
        return file.read(0, file.size)


_UTM = rasterio.crs.CRS.from_epsg(32631).to_wkt()


class Answer:
    def __init__(self, response: http.client.HTTPResponse):
        self.status, self.headers, self.body = response.status, response.headers, response.read()


def ask(server: SceneServer, target: str | None = None, method: str = "GET", **headers: str) -> Answer:
    """One request; header names with _ for -. The target is the scene's unless given, and begins with {token}."""
    target = "/{token}/scene.tif" if target is None else target
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        connection.putrequest(method, target.replace("{token}", server.token), skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return Answer(connection.getresponse())


def talk(server: SceneServer, data: bytes) -> bytes:
    """Send bytes as they are; everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data.replace(b"{token}", server.token.encode()).replace(b"{port}", b"%d" % server.port))
        return b"".join(iter(lambda: connection.recv(65536), b""))


# --- what is served --------------------------------------------------------------------------------------------------


def test_the_whole_file(server: SceneServer, content: bytes) -> None:
    answer = ask(server)
    assert (answer.status, answer.body) == (200, content)
    assert int(answer.headers["Content-Length"]) == len(content)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"].startswith("image/tiff")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()) < 60


def test_only_the_head(server: SceneServer, content: bytes) -> None:
    answer = ask(server, method="HEAD", Range="bytes=0-9")  # which means nothing to HEAD
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(content)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_range(data: st.DataObject, server: SceneServer, content: bytes) -> None:
    size = len(content)
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.one_of(st.integers(first, min(size - 1, first + 5000)), st.integers(size, 10**18), st.none()))
    answer = ask(server, Range=f"bytes={first}-{'' if last is None else last}")
    stop = size if last is None else min(size, last + 1)
    assert (answer.status, answer.body) == (206, content[first:stop])
    assert answer.headers["Content-Range"] == f"bytes {first}-{stop - 1}/{size}"


@pytest.mark.parametrize("suffix", [1, 100, 10**15])
def test_the_last_bytes(suffix: int, server: SceneServer, content: bytes) -> None:
    answer = ask(server, Range=f"bytes=-{suffix}")
    assert (answer.status, answer.body) == (206, content[-suffix:])


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=99999999-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=-",
        "bytes=a-b",
        "bytes=0-99999999999999999999999",
        "bytes=0-1,2-3",
        "bytes=0-,0-,0-,0-,0-,0-,0-,0-",  # overlapping: eight times the file
        "bytes=0-1, -1",
    ],
)
def test_ranges_that_are_refused(wanted: str, server: SceneServer, content: bytes) -> None:
    answer = ask(server, Range=wanted)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"
    assert len(answer.body) < 100


def test_a_unit_we_do_not_know_is_ignored(server: SceneServer, content: bytes) -> None:
    assert ask(server, Range="pages=1-2").body == content


def test_validators(server: SceneServer, content: bytes) -> None:
    tag = ask(server, method="HEAD").headers["ETag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        answer = ask(server, If_None_Match=known)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    assert ask(server, If_None_Match='"other"').status == 200
    assert ask(server, Range="bytes=0-9", If_Range=tag).status == 206
    for old in ('"other"', "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert ask(server, Range="bytes=0-9", If_Range=old).body == content


def test_the_tag_changes_with_the_pixels(tiny: Path, tmp_path: Path) -> None:
    tags = []
    for quality in (10, 10, 90):
        path = ltchm_geo.compress_raster(DRONE, tmp_path / "a.ltchm", quality=quality, overwrite=True).path
        with serving([path]) as found:
            tags.append(ask(found, "/{token}/a.tif", "HEAD").headers["ETag"])
    assert tags[0] == tags[1] != tags[2]


def test_ping(server: SceneServer) -> None:
    assert ask(server, "/{token}/ping").status == 200


def test_one_connection_for_many_requests(server: SceneServer, content: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        for number in range(20):
            connection.request("GET", f"/{server.token}/scene.tif", headers={"Range": f"bytes={number}-{number}"})
            assert connection.getresponse().read() == content[number : number + 1]
        assert connection.sock is not None


def test_scenes_of_the_same_name_and_odd_names(tmp_path: Path) -> None:
    paths = []
    for name in ("a/scene.ltchm", "b/scene.ltchm", "c/ä b?#%2F.ltchm", "d/...ltchm"):
        (tmp_path / name).parent.mkdir()
        paths.append(write_decodable(tmp_path / name))
    with serving(paths) as found:
        names = [scene.url.rpartition("/")[2] for scene in found.scenes]
        assert names == ["scene.tif", "scene-2.tif", "b_2F.tif", "scene-3.tif"]
        assert [scene.path for scene in found.scenes] == paths
        for name in names:
            assert ask(found, f"/{{token}}/{name}", "HEAD").status == 200


# --- who may not -----------------------------------------------------------------------------------------------------


def test_it_listens_on_this_machine_only(server: SceneServer) -> None:
    assert server._socket.getsockname()[0] == "127.0.0.1"


def test_tokens_cannot_be_guessed(folder: Path) -> None:
    tokens = set()
    for _ in range(20):
        with contextlib.closing(SceneServer([folder / "scene.ltchm"])) as found:
            tokens.add(found.token)
    assert len(tokens) == 20
    assert min(map(len, tokens)) >= 22  # 128 bits


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/scene.tif",
        "//scene.tif",
        "/wrong/scene.tif",
        "/wrong/ping",
        "/{token}",
        "/{token}/",
        "/{token}x/scene.tif",
        "/{token}/scene",
        "/{token}/SCENE.TIF",
        "/{token}/scene.ltchm",
        "/{token}/scene.tif/",
        "/{token}/../{token}/scene.tif",
        "/{token}/./scene.tif",
        "/{token}/..%2f..%2fetc%2fpasswd",
        "/{token}/%2e%2e/%2e%2e/etc/passwd",
        "/{token}/../../../../etc/passwd",
        "/{token}//etc/passwd",
        "/{token}/scene%2etif",
        "/{token}/scene.tif%00",
        "/{token}/C:\\windows\\win.ini",
    ],
)
def test_nothing_else_is_there(target: str, server: SceneServer) -> None:
    answer = ask(server, target)
    assert (answer.status, answer.body) == (404, b"not found\n")


def test_queries_mean_nothing(server: SceneServer) -> None:
    assert ask(server, "/{token}/scene.tif?../../x", "HEAD").status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.nip.io:{port}", ""]
)
def test_a_name_made_to_point_here_is_refused(host: str, server: SceneServer) -> None:
    answer = ask(server, Host=host.replace("{port}", str(server.port)))
    assert answer.status == 403
    assert "tif" not in answer.body.decode()


def test_localhost_is_this_server(server: SceneServer) -> None:
    assert ask(server, method="HEAD", Host=f"localhost:{server.port}").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_web_pages_are_refused(headers: dict[str, str], server: SceneServer) -> None:
    answer = ask(server, **headers)
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_web_page_that_may(folder: Path, content: bytes) -> None:
    origin = "http://localhost:8000"
    with serving([folder / "scene.ltchm"], cors=[origin]) as found:
        answer = ask(found, Origin=origin, Sec_Fetch_Site="cross-site", Range="bytes=0-3")
        assert (answer.status, answer.body) == (206, content[:4])
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Content-Range" in answer.headers["Access-Control-Expose-Headers"]
        before = ask(found, method="OPTIONS", Origin=origin, Access_Control_Request_Method="GET")
        assert (before.status, before.headers["Access-Control-Allow-Methods"]) == (204, "GET, HEAD")
        for other in ("http://localhost:8001", "https://localhost:8000", "null"):
            assert ask(found, Origin=other).status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_methods(method: str, server: SceneServer) -> None:
    assert ask(server, method=method).status == 405


# --- odd requests ----------------------------------------------------------------------------------------------------

_GOOD = b"GET /{token}/scene.tif HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (_GOOD + b"\r\n", 200),
        (b"GET /{token}/scene.tif HTTP/1.1\r\nConnection: close\r\n\r\n", 403),  # no host
        (b"GET http://127.0.0.1:{port}/{token}/scene.tif HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n", 400),
        (b"GET /{token}/scene.tif\r\n\r\n", 400),
        (b"GET  /{token}/scene.tif HTTP/1.1\r\n\r\n", 400),
        (b"GET /{token}/scene.tif HTTP/2.0\r\n\r\n", 400),
        (b"get /{token}/scene.tif HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),  # somebody speaks TLS
        (_GOOD + b"Host: 127.0.0.1:{port}\r\n\r\n", 400),
        (_GOOD + b"Range: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n", 400),
        (_GOOD + b"Broken\r\n\r\n", 400),
        (_GOOD + b" folded: x\r\n\r\n", 400),
        (_GOOD + b"Name : x\r\n\r\n", 400),
        (_GOOD + b"X: \xff\r\n\r\n", 400),
        (_GOOD + b"X: a\rb\r\n\r\n", 400),
        (_GOOD + b"Content-Length: 5\r\n\r\nhello", 400),
        (_GOOD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (_GOOD + b"".join(b"X%d: y\r\n" % i for i in range(70)) + b"\r\n", 431),
        (_GOOD + b"X: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_raw_requests(data: bytes, status: int, server: SceneServer) -> None:
    answer = talk(server, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 1  # nothing after it was taken for a second request


@given(st.binary(max_size=300), st.integers(0, len(_GOOD)), st.integers(0, 20))
def test_any_bytes_are_a_request_or_a_refusal(odd: bytes, at: int, less: int) -> None:
    """By themselves, and in the place of a few bytes of a good request."""
    for data in (odd, _GOOD[:at] + odd + _GOOD[at + less :]):
        _parsed_or_refused(data)


def _parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadRequestError):
        parse_request(data)


@given(
    st.one_of(st.none(), st.text(max_size=30), st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True)),
    st.integers(1, 2**62),
)
def test_any_range_header(header: str | None, size: int) -> None:
    with contextlib.suppress(BadRequestError):
        span = parse_range(header, size)
        if span is not None:
            first, length = span
            assert 0 <= first < first + length <= size


# --- load ------------------------------------------------------------------------------------------------------------


def test_200_connections_at_once(server: SceneServer, content: bytes) -> None:
    barrier = threading.Barrier(200)

    def read(number: int) -> bool:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
            connection.connect()
            barrier.wait(60)  # all are connected before the first one asks
            at = 997 * number % len(content)
            for _ in range(2):
                connection.request("GET", f"/{server.token}/scene.tif", headers={"Range": f"bytes={at}-{at + 20000}"})
                if connection.getresponse().read() != content[at : at + 20001]:
                    return False
            return True

    with ThreadPoolExecutor(200) as pool:
        assert all(pool.map(read, range(200)))


def test_silent_and_slow_connections_hinder_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_STRANGER_S", 1.0)
    with serving([folder / "scene.ltchm"]) as found, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", found.port))) for _ in range(100)]
        for number, connection in enumerate(waiting):
            connection.sendall(b"GET /"[: number % 6])
        assert ask(found, method="HEAD").status == 200
        for connection in waiting:  # each is dropped, however it drips
            connection.settimeout(20)
            with contextlib.suppress(OSError):
                connection.sendall(b"x")
                assert connection.recv(10) == b""


def test_too_many_connections_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_MAX_CONNECTIONS", 3)
    with serving([folder / "scene.ltchm"]) as found, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", found.port)))
        while len(found._writers) < 3:
            time.sleep(0.01)
        assert talk(found, b"").startswith(b"HTTP/1.1 503 ")


def test_memory_is_bounded_however_much_is_asked_for(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    original = VirtualTiff.read

    def noted(self: VirtualTiff, offset: int, length: int) -> bytes:
        lengths.append(length)
        return original(self, offset, length)

    monkeypatch.setattr(server_module, "_PIECE", 5000)
    monkeypatch.setattr(VirtualTiff, "read", noted)
    with serving([folder / "scene.ltchm"]) as found:
        assert ask(found, Range="bytes=0-999999999999999999").body == content
    assert max(lengths) <= 5000


def test_a_client_that_goes_away(server: SceneServer) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                f"GET /{server.token}/scene.tif HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
            )
    assert ask(server, method="HEAD").status == 200


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_damaged_tile_is_an_error(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(1, 1)))
    with serving([path]) as found:
        size = int(ask(found, "/{token}/a.tif", "HEAD").headers["Content-Length"])
        answer = ask(found, "/{token}/a.tif", Range=f"bytes={size - 200_000}-")
        assert answer.status == 500
        assert "tile (1, 1) of g0" in answer.body.decode()
        assert ask(found, "/{token}/a.tif", Range="bytes=0-999").status == 206


def test_a_damaged_tile_that_may_be(tmp_path: Path, content: bytes) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(1, 1)))
    with serving([path], allow_damaged=True) as found:
        answer = ask(found, "/{token}/a.tif")
    assert (answer.status, len(answer.body)) == (200, len(content))
    differing = np.frombuffer(answer.body, np.uint8) != np.frombuffer(content, np.uint8)
    assert 0 < differing.sum() <= 3 * 64 * 64  # one tile of three bands


def test_damage_found_too_late_leaves_the_answer_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_PIECE", 10_000)
    path = write_decodable(tmp_path / "a.ltchm", broken=("g1", TileIndex(2, 3)))
    with serving([path]) as found, pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(found, "/{token}/a.tif")


# --- starting and stopping -------------------------------------------------------------------------------------------


def test_what_cannot_be_served_is_told_at_once(
    folder: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = folder / "scene.ltchm"
    with pytest.raises(NotAContainerError):
        SceneServer([scene, tmp_path / "none.ltchm"])
    with pytest.raises(UsageError, match="twice"):
        SceneServer([scene, scene])
    with contextlib.closing(SceneServer([scene])) as first, pytest.raises(UsageError, match="port"):
        SceneServer([scene], port=first.port)
    path = ltchm_geo.compress_raster(DRONE, tmp_path / "a.ltchm").path
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsNotFoundError):
        SceneServer([path])


def test_it_stops_when_nobody_asks(folder: Path) -> None:
    with contextlib.closing(SceneServer([folder / "scene.ltchm"], idle_s=1.0)) as found:
        reasons: list[str] = []
        thread = threading.Thread(target=lambda: reasons.append(asyncio.run(found.serve(asyncio.Event()))))
        thread.start()
        began = time.monotonic()
        while time.monotonic() - began < 2.5:  # being asked keeps it going, strangers do not
            assert ask(found, "/{token}/ping").status == 200
            time.sleep(0.2)
        while thread.is_alive() and time.monotonic() - began < 20:
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask(found, "/wrong/ping")
            time.sleep(0.1)
        assert reasons == ["idle"]


def run(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ltchm_geo", "serve", str(folder / "scene.ltchm"), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes, **options)  # type: ignore[call-overload,no-any-return]


def test_as_a_program_for_programs(folder: Path, content: bytes) -> None:
    with run(folder, "--json", "--until-stdin-closes") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        event = json.loads(process.stdout.readline())
        assert (event["event"], event["protocol"]) == ("serving", 1)
        (scene,) = event["scenes"]
        assert scene["path"] == str(folder / "scene.ltchm")
        head, _, rest = scene["url"].partition(f"127.0.0.1:{event['port']}")
        assert head == "http://"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", event["port"], timeout=20)) as connection:
            connection.request("GET", rest)
            assert connection.getresponse().read() == content
        process.stdin.write("words on standard input do not stop it\n")
        process.stdin.close()
        process.stdin = None
        output, errors = process.communicate(timeout=60)
    assert json.loads(output) == {"event": "result", "stopped": "stopped"}
    assert (process.returncode, errors) == (0, "")


def test_ctrl_c_at_once(folder: Path) -> None:
    with run(folder) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "stopped: interrupted\n", "")


def test_ctrl_c_and_port_taken(folder: Path) -> None:
    with run(folder) as process:
        assert process.stdout is not None
        url = process.stdout.readline()
        port = url.split(":")[2].split("/")[0]
        taken = CliRunner().invoke(serve_command, [str(folder / "scene.ltchm"), "--port", port])
        assert isinstance(taken.exception, UsageError)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "stopped: interrupted\n", "")


@pytest.mark.parametrize("origin", ["*", "localhost", "http://a/b", "file://x", "http://a b"])
def test_origins_must_be_origins(origin: str, folder: Path) -> None:
    result = CliRunner().invoke(serve_command, [str(folder / "scene.ltchm"), "--cors", origin])
    assert (result.exit_code, "is not an origin" in result.output) == (2, True)


# --- GDAL ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gdal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs one of GDAL's own programs; they are another GDAL than rasterio's."""
    if shutil.which("gdalinfo") is None:
        pytest.skip("GDAL's programs are not installed (package gdal-bin)")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}

    def call(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    return call


@pytest.mark.parametrize("source", [DRONE, CHIAPAS], ids=lambda path: path.stem)
def test_gdal_sees_what_decompressing_gives(source: Path, gdal: Any, tiny: Path, tmp_path: Path) -> None:
    scene = ltchm_geo.compress_raster(source, tmp_path / "a.ltchm", tile_size=128, overviews=(2,)).path
    restored = ltchm_geo.decompress_raster(scene, tmp_path / "restored.tif").path
    with serving([scene]) as found:
        url = f"/vsicurl/{found.scenes[0].url}"
        described = json.loads(gdal("gdalinfo", "-json", url))
        expected = json.loads(gdal("gdalinfo", "-json", str(restored)))
        assert [len(band.pop("overviews")) for band in described["bands"]] == [1] * len(described["bands"])
        for changed in ("description", "files", "metadata"):
            described.pop(changed), expected.pop(changed)
        for band in (*described["bands"], *expected["bands"]):
            band.pop("block"), band.get("mask", {}).pop("overviews", None)
        assert described == expected
        window = ["-srcwin", "20", "10", "60", "50"]
        warp = ["-t_srs", "EPSG:3857", "-r", "bilinear"]
        for name, path in (("served", url), ("restored", str(restored))):
            gdal("gdal_translate", "-q", *window, path, str(tmp_path / f"window-{name}.tif"))
            gdal("gdalwarp", "-q", *warp, path, str(tmp_path / f"warp-{name}.tif"))
    for kind in ("window", "warp"):
        first, second = tmp_path / f"{kind}-served.tif", tmp_path / f"{kind}-restored.tif"
        np.testing.assert_array_equal(pixels_of(first), pixels_of(second))
        np.testing.assert_array_equal(masks_of(first), masks_of(second))


def test_gdal_reports_damage(gdal: Any, tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(1, 1)))
    with serving([path]) as found:
        url = f"/vsicurl/{found.scenes[0].url}"
        gdal("gdal_translate", "-q", "-b", "5", url, str(tmp_path / "sound.tif"))
        np.testing.assert_array_equal(pixels_of(tmp_path / "sound.tif"), pixels()[4:])
        with pytest.raises(RuntimeError, match="IReadBlock failed"):
            gdal("gdal_translate", "-q", "-b", "1", url, str(tmp_path / "damaged.tif"))


# --- web maps --------------------------------------------------------------------------------------------------------


def png(data: bytes) -> np.ndarray:
    with rasterio.MemoryFile(data) as memory, quiet_open(memory) as dataset:
        found: np.ndarray = dataset.read()
        return found


def tile_at(longitude: float, latitude: float, zoom: int) -> tuple[int, int]:
    """Column and row of the map tile that holds a place."""
    y = math.asinh(math.tan(math.radians(latitude)))
    return int((longitude + 180) / 360 * 2**zoom), int((1 - y / math.pi) / 2 * 2**zoom)


@pytest.mark.parametrize("source", [DRONE, FARMLAND, CHIAPAS], ids=lambda path: path.stem)
def test_map_tiles_are_the_warped_scene(source: Path, tiny: Path, tmp_path: Path) -> None:
    scene = ltchm_geo.compress_raster(source, tmp_path / "a.ltchm", overviews=(2,)).path
    restored = ltchm_geo.decompress_raster(scene).path
    with serving([scene]) as found, rasterio.open(restored) as dataset:
        about = json.loads(ask(found, "/{token}/a.json").body)
        west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
        assert about["bounds"] == pytest.approx([west, south, east, north])
        assert about["tiles"] == [found.scenes[0].url.removesuffix(".tif") + "/tiles/{z}/{x}/{y}.png"]
        zoom = about["maxzoom"]
        column, row = tile_at((west + east) / 2, (south + north) / 2, zoom)
        answer = ask(found, f"/{{token}}/a/tiles/{zoom}/{column}/{row}.png")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
        picture = png(answer.body)
        assert picture.shape == (4, 256, 256)
        size = 2 * math.pi * 6378137 / 2**zoom
        corner = (column * size - math.pi * 6378137, math.pi * 6378137 - row * size)
        place = rasterio.Affine(size / 256, 0, corner[0], 0, -size / 256, corner[1])
        with WarpedVRT(
            dataset, crs="EPSG:3857", transform=place, width=256, height=256, resampling=Resampling.bilinear
        ) as vrt:
            valid = vrt.dataset_mask() != 0
            if not any(flag == MaskFlags.nodata for flags in dataset.mask_flag_enums for flag in flags):
                valid &= picture[3] != 0  # without nodata, a warped dataset does not tell where it ends
            expected = vrt.read(1)
        both = valid & (picture[3] == 255)
        assert both.mean() > 0.02
        assert (valid == (picture[3] > 127)).mean() > 0.99
        assert np.corrcoef(picture[0][both], expected[both])[0, 1] > 0.99
        far = ask(found, "/{token}/a/tiles/5/0/31.png")
        assert not png(far.body).any()
        assert (
            ask(found, f"/{{token}}/a/tiles/{zoom}/{column}/{row}.png", If_None_Match=answer.headers["ETag"]).status
            == 304
        )
        assert png(ask(found, "/{token}/a/tiles/0/0/0.png").body).shape == (4, 256, 256)


def in_degrees(folder: Path, pixels: np.ndarray, *transform: float) -> Path:
    """A scene in longitude and latitude."""
    place = {"crs": rasterio.crs.CRS.from_epsg(4326), "transform": rasterio.Affine(*transform)}
    return ltchm_geo.compress_raster(write_tif(folder / "a.tif", pixels, **place), lossless=True).path


def on_map(server: SceneServer, longitude: float, latitude: float, zoom: int) -> tuple[int, ...]:
    """Red, green, blue and opacity there."""
    column, row = tile_at(longitude, latitude, zoom)
    picture = png(ask(server, f"/{{token}}/a/tiles/{zoom}/{column}/{row}.png").body)
    x, y = tile_at(longitude, latitude, zoom + 8)
    return tuple(picture[:, y % 256, x % 256].tolist())


def test_a_grid_from_0_to_360_degrees(tmp_path: Path) -> None:
    pixels = np.repeat(np.arange(0, 240, 2, dtype=np.uint8), 3)[None, None].repeat(180, axis=1)  # of 1 degree
    with serving([in_degrees(tmp_path, pixels, 1, 0, 0, 0, -1, 90)]) as found:
        assert json.loads(ask(found, "/{token}/a.json").body)["bounds"] == [-180, -85.05, 180, 85.05]
        for zoom in (0, 2):
            for longitude in (-179.95, -179.6, -120.5, -1.5, -0.05, 0.05, 1.5, 100.5, 179.6, 179.95):
                *grey, opacity = on_map(found, longitude, 20, zoom)
                assert opacity == 255
                assert grey == pytest.approx([int(pixels[0, 0, math.floor(longitude % 360)])] * 3, abs=3)


@pytest.mark.parametrize(
    ("west", "bounds"),
    [(170, (-180, 180)), (-190, (-180, 180)), (180, (-180, -160)), (-200, (160, 180)), (350, (-10, 10))],
)
def test_bounds_across_the_antimeridian(west: float, bounds: tuple[float, float], tmp_path: Path) -> None:
    pixels = np.full((1, 300, 500), 99, np.uint8)
    with serving([in_degrees(tmp_path, pixels, 0.04, 0, west, 0, -0.04, 10)]) as found:
        about = json.loads(ask(found, "/{token}/a.json").body)
        assert about["bounds"] == pytest.approx([bounds[0], -2, bounds[1], 10])
        assert about["maxzoom"] == 6
        assert on_map(found, (west + 180.5) % 360 - 180, 5, 6) == (99, 99, 99, 255)


def test_a_scene_whose_south_is_up(tmp_path: Path) -> None:
    pixels = np.full((1, 300, 500), 50, np.uint8)
    pixels[:, :150] = 99  # the south
    with serving([in_degrees(tmp_path, pixels, 0.04, 0, 5, 0, 0.04, 40)]) as found:
        assert json.loads(ask(found, "/{token}/a.json").body)["bounds"] == pytest.approx([5, 40, 25, 52])
        assert on_map(found, 10, 41, 6) == (99, 99, 99, 255)
        assert on_map(found, 10, 51, 6) == (50, 50, 50, 255)


@pytest.mark.parametrize("table", [True, False])
def test_classes_are_not_mixed(table: bool, tmp_path: Path) -> None:
    classes = np.random.default_rng(1).choice(np.array([2, 3, 7], np.uint8), (1, 300, 500))
    colors = {value: (30 * value, 0, 255 - value, 255) for value in range(10)}
    place = {"crs": rasterio.crs.CRS.from_epsg(4326), "transform": rasterio.Affine(0.04, 0, 5, 0, -0.04, 52)}
    source = write_classes(tmp_path / "a.tif", classes, colors if table else None, **place)
    expected = [colors[value][:3] for value in (2, 3, 7)] if table else [(0,) * 3, (51,) * 3, (255,) * 3]
    with serving([ltchm_geo.compress_raster(source, lossless=True).path]) as found:
        for zoom in (5, 8):
            column, row = tile_at(10, 45, zoom)
            picture = png(ask(found, f"/{{token}}/a/tiles/{zoom}/{column}/{row}.png").body)
            shown = picture[:3, picture[3] != 0].T
            assert {tuple(color) for color in shown.tolist()} == set(expected)


@pytest.mark.parametrize(
    "path",
    [
        "1/2/0.png",
        "0/0/0.jpg",
        "0/0/0",
        "-1/0/0.png",
        "0/0/00.png",
        "25/0/0.png",
        "99999999999/0/0.png",
        "0/0/0.png/",
        "a/b/c.png",
    ],
)
def test_map_tiles_that_are_none(path: str, coast_server: SceneServer) -> None:
    assert ask(coast_server, f"/{{token}}/a/tiles/{path}").status == 404
    assert ask(coast_server, f"/{{token}}/b/tiles/{path}").status == 404


@pytest.fixture(scope="module")
def coast_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SceneServer]:
    folder = tmp_path_factory.mktemp("maps")
    placed = replace(DECODABLE, georef=Georef(_UTM, DECODABLE.georef.transform))
    sound = write_decodable(folder / "a.ltchm", meta=placed)
    damaged = write_decodable(folder / "damaged.ltchm", broken=("g0", TileIndex(1, 1)), meta=placed)
    site = Georef('LOCAL_CS["site",UNIT["metre",1]]', DECODABLE.georef.transform)
    nowhere = write_decodable(folder / "nowhere.ltchm")
    somewhere = write_decodable(folder / "somewhere.ltchm", meta=replace(DECODABLE, georef=site))
    with serving([sound, damaged, nowhere, somewhere]) as found:
        yield found


@pytest.mark.parametrize("name", ["nowhere", "somewhere"])
def test_a_scene_that_lies_nowhere_is_on_no_map(name: str, coast_server: SceneServer) -> None:
    assert ask(coast_server, "/{token}/a.json").status == 200
    assert ask(coast_server, f"/{{token}}/{name}.tif", "HEAD").status == 200
    assert ask(coast_server, f"/{{token}}/{name}.json").status == 404
    assert ask(coast_server, f"/{{token}}/{name}/tiles/0/0/0.png").status == 404


def test_a_map_tile_with_a_damaged_part_is_an_error(coast_server: SceneServer) -> None:
    about = json.loads(ask(coast_server, "/{token}/damaged.json").body)
    west, south, east, north = about["bounds"]
    column, row = tile_at((west + east) / 2, (south + north) / 2, 14)
    answer = ask(coast_server, f"/{{token}}/damaged/tiles/14/{column}/{row}.png")
    assert answer.status == 500
    assert "tile (1, 1) of g0" in answer.body.decode()
    assert ask(coast_server, f"/{{token}}/a/tiles/14/{column}/{row}.png").status == 200


def test_it_stops_though_a_connection_is_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12.1 on, asyncio's server waits for all of them: so that older releases test it as well."""

    async def wait_closed(self: Any) -> None:
        if self._waiters is not None:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    monkeypatch.setattr(asyncio.base_events.Server, "wait_closed", wait_closed)
    with contextlib.ExitStack() as clients, serving([folder / "scene.ltchm"]) as found:  # sees to it that it ends
        asking = clients.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", found.port)))
        asking.request("HEAD", f"/{found.token}/scene.tif")
        assert asking.getresponse().status == 200
        clients.enter_context(socket.create_connection(("127.0.0.1", found.port)))  # which never asks
