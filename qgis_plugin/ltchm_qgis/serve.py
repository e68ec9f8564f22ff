"""Compressed scenes as raster layers: engines that decode on demand, and the addresses GDAL reads.

`ltchm serve` shows a scene as a GeoTIFF on a port of this machine, under a random name. It ends when its standard
input closes, so also when QGIS crashes. Addresses change with every run: projects keep the scene's path instead, which
is turned into an address when a project is read and back when it is written.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from qgis.core import QgsDataProvider, QgsPathResolver, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QCoreApplication, QObject, Qt, QThread, pyqtSignal
from qgis.PyQt.QtWidgets import QApplication

from . import engine
from .settings import Settings
from .translation import tr

__all__ = ["SOURCE_PROPERTY", "Scenes", "is_scene", "scenes"]

#: Custom property of layers: path of the compressed scene they show.
SOURCE_PROPERTY = "ltchm/source"

_PREFIX = "/vsicurl/"
_START_SECONDS = 90.0  # a cold PyTorch on a slow disk
_IDLE_MINUTES = 60 * 24 * 7  # as good as never: QGIS closing ends it
_YOUNG = 20.0  # an engine that dies so soon is not started again by itself
_MANIFEST = "ltchm-manifest.json"


def is_scene(path: str) -> bool:
    """Whether a path looks like a compressed scene: a ``.ltchm`` file or a ``.zarr`` folder with our manifest."""
    lower = path.lower().rstrip("/\\")
    if lower.endswith(".ltchm"):
        return os.path.isfile(path)
    return lower.endswith(".zarr") and os.path.isfile(os.path.join(path, _MANIFEST))


class _Server:
    """One `ltchm serve` child and the address of its scene."""

    def __init__(self, path: str, ended: pyqtSignal):
        self.path, self.url, self.began = path, "", time.monotonic()
        self.shown = False  # whether a layer of the project has used it
        self._ended = ended
        self._errors: deque[str] = deque(maxlen=30)
        self._outcome: dict[str, object] | None = None
        self._first: queue.Queue[str | None] = queue.Queue()
        interpreter = Settings().interpreter
        if not interpreter:
            raise engine.EngineMissing(engine.guidance())
        arguments = ["serve", path, "--until-stdin-closes", "--idle-minutes", str(_IDLE_MINUTES)]
        arguments += ["--device", Settings().device, "--cache", str(Settings().decoded_megabytes)]
        self._process = engine.start(engine.command_line(interpreter, arguments), subprocess.PIPE)
        self._threads = [
            engine.read_lines(self._process.stdout, self._take),
            engine.read_lines(self._process.stderr, self._errors.append),
        ]
        try:
            self._wait(interpreter)
        except BaseException:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Let it end."""
        self._ended = None  # it is no surprise then
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        engine.stop(self._process)

    def _take(self, line: str | None) -> None:
        """Called by the reading thread."""
        self._first.put(line)
        ended = self._ended
        if line is None and self.url and ended is not None:
            ended.emit(self.path)

    def _wait(self, interpreter: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.url:
            try:
                line = self._first.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise engine.EngineError(tr("The LTCHM engine did not start in time. Try again.")) from None
            if line is None:
                self._fail(interpreter)
            event = engine.parse_event(line) or {}
            if event.get("event") == "serving":
                self.url = event["scenes"][0]["url"]
            elif event:
                self._outcome = event

    def _fail(self, interpreter: str) -> None:
        code = self._process.wait()
        self._threads[1].join(1)
        engine.judge(self._outcome, code or 1, [line for line in self._errors if line], interpreter)
        raise engine.EngineError(tr("The LTCHM engine ended at once."))


class Scenes(QObject):
    """The compressed scenes this QGIS has opened. `scenes()` is the only one.

    Signals
    -------
    problem(str) : something the user should be told
    """

    problem = pyqtSignal(str)
    _ended = pyqtSignal(str)

    def __init__(self):
        super().__init__()
        self._servers: dict[str, _Server] = {}
        self._lock = threading.Lock()
        self._hooks: tuple[str, str] | None = None
        self._ended.connect(self._revive, Qt.ConnectionType.QueuedConnection)

    def open(self, path: str, name: str = "") -> QgsRasterLayer:
        """A layer of a compressed scene, not yet in the project.

        Raises
        ------
        EngineMissing, EngineError
        """
        path = os.path.abspath(path)
        layer = QgsRasterLayer(self.source(path), name or Path(path).stem, "gdal")
        if not layer.isValid():
            raise engine.EngineError(tr("QGIS cannot read {scene} through the engine.").format(scene=path))
        layer.setCustomProperty(SOURCE_PROPERTY, path)
        return layer

    def source(self, path: str) -> str:
        """What GDAL opens to read a scene; starts an engine if none serves it. Any thread may ask."""
        path = os.path.abspath(path)
        with self._lock:
            server = self._servers.get(path)
            if server is None or not server.alive:
                _spare_proxy()
                with _busy():
                    server = self._servers[path] = _Server(path, self._ended)
            return _PREFIX + server.url

    def scene(self, source: str) -> str | None:
        """The scene behind a source that `source` gave; None if it is something else."""
        return next((s.path for s in list(self._servers.values()) if source == _PREFIX + s.url), None)

    def install(self) -> None:
        """Make projects keep scenes by path, and engines end with the layers that need them."""
        self._hooks = (QgsPathResolver.setPathPreprocessor(self._read_path), QgsPathResolver.setPathWriter(self._path))
        QgsProject.instance().readProject.connect(self._note_sources)
        QgsProject.instance().layersAdded.connect(self._note_shown)
        QgsProject.instance().layersRemoved.connect(self._release)

    def close(self) -> None:
        """End all engines and take the hooks away."""
        if self._hooks is not None:
            QgsPathResolver.removePathPreprocessor(self._hooks[0])
            QgsPathResolver.removePathWriter(self._hooks[1])
            QgsProject.instance().readProject.disconnect(self._note_sources)
            QgsProject.instance().layersAdded.disconnect(self._note_shown)
            QgsProject.instance().layersRemoved.disconnect(self._release)
            self._hooks = None
        while self._servers:
            self._servers.popitem()[1].stop()

    def _path(self, path: str) -> str:
        """What a project writes instead of an address."""
        return self.scene(path) or path

    def _read_path(self, path: str) -> str:
        """What a project reads instead of a scene's path."""
        if not path.lower().endswith((".ltchm", ".zarr")):
            return path
        absolute = os.path.join(QgsProject.instance().absolutePath(), path)
        if not is_scene(absolute):
            return path
        try:
            return self.source(absolute)
        except engine.EngineError as error:
            self.problem.emit(f"{os.path.basename(absolute)}: {error}")
            return path

    def _layers(self) -> Iterator[tuple[QgsRasterLayer, str]]:
        for layer in QgsProject.instance().mapLayers().values():
            scene = self.scene(layer.source()) if isinstance(layer, QgsRasterLayer) else None
            if scene is not None:
                yield layer, scene

    def _note_sources(self, *_ignored: object) -> None:
        """A project that moved has its scenes elsewhere now."""
        for layer, scene in self._layers():
            layer.setCustomProperty(SOURCE_PROPERTY, scene)

    def _note_shown(self, *_ignored: object) -> None:
        for _, scene in self._layers():
            self._servers[scene].shown = True

    def _release(self, *_ignored: object) -> None:
        used = {scene for _, scene in self._layers()}
        for path, server in list(self._servers.items()):
            if server.shown and path not in used:
                del self._servers[path]
                server.stop()

    def _revive(self, path: str) -> None:
        """An engine ended by itself: start another for the layers that need it, unless that would go on for ever."""
        server = self._servers.get(path)
        layers = [layer for layer, scene in self._layers() if scene == path]
        if server is None or server.alive or not layers:
            return
        name = os.path.basename(path)
        if time.monotonic() - server.began < _YOUNG:
            text = tr("The LTCHM engine of {scene} crashed. Remove the layer and open it again.")
            self.problem.emit(text.format(scene=name))
            return
        try:
            source = self.source(path)
        except engine.EngineError as error:
            self.problem.emit(f"{name}: {error}")
            return
        for layer in layers:
            layer.setDataSource(source, layer.name(), "gdal", QgsDataProvider.ProviderOptions())
            layer.triggerRepaint()
        self.problem.emit(tr("The LTCHM engine of {scene} crashed and was started again.").format(scene=name))


_scenes: Scenes | None = None


def scenes() -> Scenes:
    """The scenes of this QGIS."""
    global _scenes  # noqa: PLW0603  # one per process, as there is one QgsProject
    if _scenes is None:
        _scenes = Scenes()
        QCoreApplication.instance().aboutToQuit.connect(_scenes.close)
    return _scenes


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """A waiting cursor, where there is one."""
    application = QCoreApplication.instance()
    if not isinstance(application, QApplication) or QThread.currentThread() != application.thread():
        yield
        return
    QApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
    try:
        yield
    finally:
        QApplication.restoreOverrideCursor()


def _spare_proxy() -> None:
    """GDAL must not ask a proxy for addresses of this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if "127.0.0.1" not in hosts:
            os.environ[name] = ",".join([*hosts, "127.0.0.1"])
