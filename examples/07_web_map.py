"""Show a compressed scene on a web map, without restoring it.

    python examples/07_web_map.py scene.ltchm

Prints the address of a page; open it in a browser. The page is served on one port, the scene's map tiles on another,
which lets this page read them and no other. MapLibre GL JS comes from a CDN, or from a folder with its `dist` files:
`npm pack maplibre-gl`, unpack it, and give `--maplibre package/dist`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

from ltchm_geo.server import SceneServer

CDN = "https://unpkg.com/maplibre-gl@5.24.1/dist"
LIBRARY = {"maplibre-gl.js": "text/javascript", "maplibre-gl.css": "text/css"}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>LTCHM scene</title>
<link rel="stylesheet" href="{library}/maplibre-gl.css">
<style>html, body, #map {{ height: 100%; margin: 0 }}</style>
<div id="map"></div>
<script src="{library}/maplibre-gl.js"></script>
<script>
  const map = new maplibregl.Map({{
    container: "map",
    style: {{
      version: 8,
      sources: {{ scene: {{ type: "raster", url: "{tilejson}", tileSize: 256 }} }},
      layers: [
        {{ id: "ground", type: "background", paint: {{ "background-color": "#ddd" }} }},
        {{ id: "scene", type: "raster", source: "scene" }},
      ],
    }},
  }});
  map.addControl(new maplibregl.NavigationControl());
  fetch("{tilejson}").then((answer) => answer.json()).then((scene) => {{
    const [west, south, east, north] = scene.bounds;
    map.fitBounds([[west, south], [east, north]], {{ animate: false, padding: 20 }});
    // Browsers under test look at the title to see when everything is on the screen, or what went wrong.
    map.once("idle", () => {{ document.title += ": shown" }});
  }});
  map.on("error", (event) => {{ document.title = "error: " + event.error.message }});
</script>
"""


def make_page_server(port: int, library: Path | None) -> ThreadingHTTPServer:
    """A server for the page, which its attribute `page` will hold, and for MapLibre where it lies in a folder."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            if name == "":
                body, kind = self.server.page.encode(), "text/html"  # type: ignore[attr-defined]
            elif library is not None and name in LIBRARY:
                body, kind = (library / name).read_bytes(), LIBRARY[name]
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Page)


@click.command()
@click.argument("scene", type=click.Path(exists=True))
@click.option("--port", default=0, help="Of the page; any that is free unless given.")
@click.option("--maplibre", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of MapLibre.")
@click.option("--minutes", default=30.0, show_default=True, help="Stop when nobody has looked for so long.")
def main(scene: str, port: int, maplibre: Path | None, minutes: float) -> None:
    """Show SCENE on a web map."""
    pages = make_page_server(port, maplibre)
    origin = f"http://127.0.0.1:{pages.server_port}"
    with pages, contextlib.closing(SceneServer([scene], cors=[origin], idle_s=60 * minutes)) as server:
        tilejson = server.scenes[0].url.removesuffix(".tif") + ".json"
        pages.page = PAGE.format(tilejson=tilejson, library="." if maplibre else CDN)  # type: ignore[attr-defined]
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        print(origin, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(server.serve(asyncio.Event()))
        pages.shutdown()


if __name__ == "__main__":
    main()
