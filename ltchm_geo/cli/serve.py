"""`ltchm serve`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from typing import TYPE_CHECKING

import click

from ltchm_geo.cli.options import PROTOCOL, Reporter, device_option, json_option, write_event

if TYPE_CHECKING:
    from ltchm_geo.server import SceneServer

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")


def _origins(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if not _ORIGIN.fullmatch(origin):
            raise click.BadParameter(f"{origin!r} is not an origin such as http://localhost:8000.", ctx, param)
    return value


@click.command(
    short_help="Let QGIS, GDAL and browsers read scenes without decompressing them.",
    epilog="""
    \b
    Examples:
      ltchm serve scene.ltchm
      ltchm serve north.ltchm south.ltchm --idle-minutes 5
      gdalinfo /vsicurl/http://127.0.0.1:PORT/TOKEN/scene.tif
    """,
)
@click.argument("src", nargs=-1, required=True)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port; any that is free unless given."
)
@click.option(
    "--idle-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="M",
    help="Stop after this long without a request.",
)
@click.option(
    "--until-stdin-closes",
    is_flag=True,
    help="Stop when standard input is closed, for programs that start the server.",
)
@click.option(
    "--cors", multiple=True, callback=_origins, metavar="ORIGIN", help="Let web pages from there read; may be repeated."
)
@click.option(
    "--cache",
    "cache_mb",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="MB",
    help="Decoded pixels to keep in memory.",
)
@click.option("--allow-damaged", is_flag=True, help="Show nodata (or 0) in place of damaged tiles.")
@device_option
@json_option
def serve(
    src: tuple[str, ...],
    port: int,
    idle_minutes: float,
    until_stdin_closes: bool,
    cors: tuple[str, ...],
    cache_mb: int,
    allow_damaged: bool,
    device: str,
    as_json: bool,
) -> None:
    """Serve the compressed scenes SRC to programs on this machine, as GeoTIFFs that are decoded where they are read.

    Give the printed address to QGIS (Add Raster Layer, protocol HTTP) or, behind /vsicurl/, to GDAL. The address
    contains a secret that changes with every start; without it, requests get 404. Ctrl-C stops.
    """
    from ltchm_geo.server import SceneServer

    server = SceneServer(
        src,
        port=port,
        device=device,
        idle_s=60 * idle_minutes,
        cors=cors,
        cache_bytes=cache_mb << 20,
        allow_damaged=allow_damaged,
    )
    reason = "interrupted"
    with contextlib.closing(server), contextlib.suppress(KeyboardInterrupt):
        reason = asyncio.run(_serve(server, as_json, until_stdin_closes))
    Reporter(as_json).result({"stopped": reason}, f"stopped: {reason}")


def _announce(server: SceneServer, as_json: bool) -> None:
    if as_json:
        scenes = [{"path": scene.path, "url": scene.url} for scene in server.scenes]
        write_event("serving", {"scenes": scenes, "port": server.port, "protocol": PROTOCOL})
    else:
        click.echo("\n".join(scene.url for scene in server.scenes))


async def _serve(server: SceneServer, as_json: bool, until_stdin_closes: bool) -> str:
    _announce(server, as_json)  # not before the loop runs, which takes a Ctrl-C from here on
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    if until_stdin_closes:

        def wait() -> None:
            while os.read(sys.stdin.fileno(), 4096):
                pass
            with contextlib.suppress(RuntimeError):  # the loop may have ended by itself meanwhile
                loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=wait, daemon=True).start()
    return await server.serve(stop)
