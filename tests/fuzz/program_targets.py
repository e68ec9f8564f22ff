"""Targets that take the server, the command line and the journals; see `targets`."""

from __future__ import annotations

import contextlib
import functools
import os

import click
from drawing import ODD, Draw
from network_targets import tiny
from rasters import smooth, write_tif
from targets import folder, quiet, small_scene, target

from ltchm_geo._resumable_sink import _sound_keys
from ltchm_geo.archive.journal import Journal, SceneRecord
from ltchm_geo.cli.main import cli, main
from ltchm_geo.server import SceneServer
from ltchm_geo.server_http import BadRequestError, parse_request

INTERNAL_ERROR = 70


@functools.cache
def _server() -> SceneServer:
    small_scene()
    return SceneServer([folder() / "base.ltchm"])


@target
def served(data: bytes) -> None:
    """A request behind the token: any path, any headers."""
    server, draw = _server(), Draw(data)
    names = [
        "base.tif",
        "base.tif.aux.xml",
        "base.json",
        "base",
        "tiles",
        "ping",
        "..",
        "0",
        "1",
        "22",
        "0.png",
        "%2e",
        "",
    ]
    path = "/".join(draw.one_of(names) for _ in range(1 + draw.number(6)))
    head = f"GET /{server.token}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode()
    with contextlib.suppress(BadRequestError):
        request = parse_request(head + draw.rest())
        parts = server._authorise(request)
        file = server._files.find(parts)
        response, first, length = server._response(request, parts, file)
        response.head(length, request.keep_alive)
        if file is not None:
            file.read(first, min(length, 100_000))


@functools.cache
def _commands() -> dict[str, list[str]]:
    """Commands that end by themselves, and their options."""
    context = click.Context(cli)
    names = [n for n in cli.list_commands(context) if n not in ("serve", "train", "export", "bench", "about")]
    found = {}
    for name in names:
        command = cli.get_command(context, name)
        assert command is not None
        found[name] = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
    return found


@target
def command_line(data: bytes) -> None:
    """Arguments of any kind; no command may break down, whatever it is told."""
    draw = Draw(data)
    tiny()
    here = folder() / "here"
    if not here.exists():
        here.mkdir()
        write_tif(here / "a.tif", smooth(3, 130, 90))
        (here / "s.ltchm").write_bytes(small_scene())
        (here / "text.txt").write_text("text")
    values = [
        "a.tif",
        "s.ltchm",
        "out",
        "o.ltchm",
        "o.tif",
        "text.txt",
        ".",
        "1",
        "0",
        "-1",
        "2",
        "128",
        "nan",
        "inf",
        "1e999",
    ]
    values += [
        "1,2",
        "0 0 9 9",
        "false",
        "none",
        "x" * 300,
        "é",
        "\udcff",
        *(str(odd)[:20] for odd in ODD if str(odd).isprintable()),
    ]
    command = draw.one_of(sorted(_commands()))
    arguments = [command]
    for _ in range(draw.number(7)):
        arguments.append(draw.one_of(_commands()[command]) if draw.byte() % 2 else draw.one_of(values))
    before = os.getcwd()
    os.chdir(here)
    try:
        with quiet():
            code = main(arguments)
    finally:
        os.chdir(before)
    assert code != INTERNAL_ERROR, f"{arguments} broke down; LTCHM_DEBUG=1 shows how"


# --- journals --------------------------------------------------------------------------------------------------------


@target
def sink_journal(data: bytes) -> None:
    """What a run that died noted of the shards it stored."""
    part = folder() / "part"
    part.mkdir(exist_ok=True)
    (part / "a").write_bytes(b"abc")
    lines = data.decode("utf-8", "replace").split("\n")
    for key, record in _sound_keys(part, ["identity", *lines], "identity"):
        assert (part / key).stat().st_size == record.size
        assert (part / key).resolve().parent == part.resolve()


@target
def archive_journal(data: bytes) -> None:
    """A journal with some of its bytes changed."""
    draw, path = Draw(data), folder() / "journal.sqlite"
    content = bytearray(_journal())
    for _ in range(draw.number(9)):
        # SQLite's header and schema lie in the first page, records in later ones.
        content[draw.number(len(content) if draw.byte() % 2 else 200)] ^= draw.byte()
    path.write_bytes(bytes(content) if draw.byte() % 8 else draw.rest())
    journal = Journal(path, "archive")
    try:
        journal.scenes()
    finally:
        journal.close()


@functools.cache
def _journal() -> bytes:
    path = folder() / "sound.sqlite"
    journal = Journal(path, "archive")
    journal.put([SceneRecord("a.ltchm", "a.tif"), SceneRecord("b.ltchm", "b.tif")])
    journal.close()
    return path.read_bytes()
