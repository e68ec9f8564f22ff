"""How quickly a compressed scene comes onto the screen when it is opened in place, with and without overviews.

    python examples/06_open_in_place.py scene.ltchm other.ltchm

Plays somebody with a map window of 1024 x 768 pixels, who looks at the whole scene, or at a part of it at a quarter of
its resolution or in full, and then pans by half a window four times. Each of the three happens in a process of its own,
so that nothing is warm; the first picture includes loading the network. Besides the time on the clock, the table says
how many tiles were decoded, and how many seconds of processor time that took (all cores together): unlike the clock it
does not depend on what else the machine does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
from rasterio.windows import Window

import ltchm_geo
from ltchm_geo.container import ContainerReader
from ltchm_geo.types import TileIndex

SCREEN = (768, 1024)
PANS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # half windows down and right


class Watch:
    """Clock, processor time and decoded tiles since the last look."""

    def __init__(self) -> None:
        self.tiles = 0
        self.steps: list[dict[str, Any]] = []
        original = ContainerReader.tile_payload

        def counted(reader: ContainerReader, array: str, tile: TileIndex, pyramid: int = 0) -> bytes:
            self.tiles += 1
            return original(reader, array, tile, pyramid)

        ContainerReader.tile_payload = counted  # type: ignore[method-assign, assignment]
        self._restart()

    def _restart(self) -> None:
        self._began, self._cpu, self._tiles = time.perf_counter(), time.process_time(), self.tiles

    def step(self, name: str) -> None:
        """Note what has passed since the last step."""
        seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        self.steps.append({"step": name, "seconds": seconds, "cpu": cpu, "tiles": self.tiles - self._tiles})
        self._restart()


def play(path: str, factor: int) -> list[dict[str, Any]]:
    """Open a scene and look at it at 1:factor, or as a whole if that is 0."""
    watch = Watch()
    with ltchm_geo.rasterio_open(path) as scene:
        watch.step("open")
        bands = list(range(1, min(3, scene.count) + 1))
        shape = (len(bands), *SCREEN)
        if not factor:
            scene.read(bands, out_shape=shape)
            watch.step("whole scene")
            return watch.steps
        height, width = factor * SCREEN[0], factor * SCREEN[1]
        row, column = (scene.height - height) // 3, (scene.width - width) // 3
        for number, (down, right) in enumerate(((0, 0), *PANS)):
            row, column = row + down * height // 2, column + right * width // 2
            scene.read(bands, window=Window(column, row, width, height), out_shape=shape)
            watch.step(f"pan {number}" if number else f"part at 1:{factor}")
    return watch.steps


@click.command()
@click.argument("scenes", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--child", type=int, hidden=True)
def main(scenes: tuple[str, ...], child: int | None) -> None:
    """Time looking at SCENES, each of at least 6144 x 8192 pixels."""
    if child is not None:
        print(json.dumps(play(scenes[0], child)))
        return
    for scene in scenes:
        with ContainerReader(scene) as reader:
            if any(side < 8 * screen for side, screen in zip(reader.meta.shape, SCREEN, strict=True)):
                raise click.UsageError(f"{scene} is too small to pan in: {reader.meta.shape.y} x {reader.meta.shape.x}")
        print(f"{Path(scene).name}\n{'':16}{'seconds':>9}{'processor s':>13}{'tiles':>7}")
        for factor in (0, 4, 1):
            command = [sys.executable, __file__, "--child", str(factor), scene]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            for step in json.loads(found):
                print(f"{step['step']:16}{step['seconds']:9.2f}{step['cpu']:13.2f}{step['tiles']:7}", flush=True)


if __name__ == "__main__":
    main()
