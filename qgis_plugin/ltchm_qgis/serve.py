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
from collections.abc import Iterable, Iterator
from pathlib import Path

from qgis.core import QgsDataProvider, QgsMapLayer, QgsPathResolver, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QCoreApplication, QObject, Qt, QThread, pyqtSignal
from qgis.PyQt.QtWidgets import QApplication

from . import engine
from .settings import Settings
from .translation import tr

__all__ = ["Scenes", "is_scene", "scene_of", "scenes"]

_PREFIX = "/vsicurl/"
_START_SECONDS = 90.0  # a cold PyTorch on a slow disk
_IDLE_MINUTES = 60 * 24 * 7  # as good as never: QGIS closing ends it
_FORGIVEN = 10.0  # seconds until a scene that could not be had is tried again
_YOUNG = 20.0  # an engine that dies so soon is not started again by itself
_MANIFEST = "ltchm-manifest.json"


def is_scene(path: str) -> bool:
    """Whether a path looks like a compressed scene: a ``.ltchm`` file or a ``.zarr`` folder with our manifest."""
    lower = path.lower().rstrip("/\\")
    if lower.endswith(".ltchm"):
        return os.path.isfile(path)
    return lower.endswith(".zarr") and os.path.isfile(os.path.join(path, _MANIFEST))


def scene_of(path: str) -> str:
    """The scene that a chosen file stands for: file dialogs offer no ``.zarr`` folders, but the manifest in one."""
    folder, name = os.path.split(path)
    return folder if name in (_MANIFEST, "zarr.json") and is_scene(folder) else path


def _identity(path: str) -> tuple[int, ...] | None:
    """Changes when another scene takes the path; None if there is none."""
    file = os.path.join(path, _MANIFEST) if os.path.isdir(path) else path
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _Server:
    """One `ltchm serve` child and the address of its scene."""

    def __init__(self, path: str, ended: pyqtSignal):
        self.path, self.url, self.began = path, "", time.monotonic()
        self._identity = _identity(path)
        self.shown = False  # whether a layer of the project has used it
        self._ended = ended
        self._errors: deque[str] = deque(maxlen=engine.TAIL)
        self._outcome: dict[str, object] | None = None
        self._first: queue.Queue[str | None] = queue.Queue()
        interpreter = Settings().interpreter
        if not interpreter:
            raise engine.EngineMissing(engine.guidance())
        arguments = ["serve", path, "--until-stdin-closes", "--idle-minutes", str(_IDLE_MINUTES)]
        arguments += ["--device", Settings().device, "--cache", str(Settings().decoded_megabytes)]
        self.process = engine.start(engine.command_line(interpreter, arguments), subprocess.PIPE)
        self._threads = [
            engine.read_lines(self.process.stdout, self._take),
            engine.read_lines(self.process.stderr, self._errors.append),
        ]
        try:
            self._wait(interpreter)
        except BaseException:
            _stop([self])
            raise

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return self.process.poll() is None

    @property
    def current(self) -> bool:
        """Whether it serves, and serves what is under the path now."""
        return self.alive and self._identity == _identity(self.path)

    def dismiss(self) -> None:
        """Tell it that it is needed no more; that it ends is no surprise then."""
        self._ended = None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

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
                engine.check_protocol(event)
                self.url = event["scenes"][0]["url"]
            elif event:
                self._outcome = event

    def _fail(self, interpreter: str) -> None:
        code = self.process.wait()
        self._threads[1].join(1)
        engine.judge(self._outcome, code or 1, [line for line in self._errors if line], interpreter)
        raise engine.EngineError(tr("The LTCHM engine ended at once."))


def _stop(servers: Iterable[_Server]) -> None:
    """End engines, all at once."""
    for server in servers:
        server.dismiss()
    engine.stop(*(server.process for server in servers))


class Scenes(QObject):
    """The compressed scenes this QGIS has opened. `scenes()` is the only one.

    Signals
    -------
    problem(str) : something the user should be told
    """

    problem = pyqtSignal(str)
    _ended = pyqtSignal(str)
    _moved = pyqtSignal(object, str)

    def __init__(self):
        super().__init__()
        self._servers: dict[str, _Server] = {}
        self._lock = threading.Lock()
        self._hooks: tuple[str, str] | None = None
        self._failed: dict[str, tuple[str, float]] = {}  # scenes that could not be had: why, and when
        self._ended.connect(self._revive, Qt.ConnectionType.QueuedConnection)
        self._moved.connect(self._follow)

    def open(self, path: str, name: str = "") -> QgsRasterLayer:
        """A layer of a compressed scene, not yet in the project.

        Raises
        ------
        EngineMissing, EngineError
        """
        path = os.path.abspath(path)
        layer = QgsRasterLayer(self.source(path), name or Path(path).stem, "gdal")
        if not layer.isValid():
            self._drop([path] if not self._servers[path].shown else [])
            raise engine.EngineError(tr("QGIS cannot read {scene} through the engine.").format(scene=path))
        _name_scene(layer, path)
        return layer

    def source(self, path: str) -> str:
        """What GDAL opens to read a scene; starts an engine if none serves it. Any thread may ask."""
        path = os.path.abspath(path)
        with self._lock:
            old = server = self._servers.get(path)
            if server is None or not server.current:
                _spare_proxy()
                with _busy():
                    server = self._servers[path] = _Server(path, self._ended)
            source = _PREFIX + server.url
        if old is not None and old is not server:
            self._moved.emit(old, source)
        return source

    def scene(self, source: str) -> str | None:
        """The scene behind a source that `source` gave; None if it is something else."""
        return next((s.path for s in list(self._servers.values()) if source == _PREFIX + s.url), None)

    def serves(self, path: str) -> bool:
        """Whether an engine holds this scene open."""
        server = self._servers.get(os.path.abspath(path))
        return server is not None and server.alive

    def install(self) -> None:
        """Make projects keep scenes by path, and engines end with the layers that need them. Once is enough."""
        if self._hooks is not None:
            return
        self._hooks = (QgsPathResolver.setPathPreprocessor(self._read_path), QgsPathResolver.setPathWriter(self._path))
        QgsProject.instance().layersAdded.connect(self._added)
        QgsProject.instance().layersRemoved.connect(self._release)
        self._added(list(QgsProject.instance().mapLayers().values()))

    def close(self) -> None:
        """End all engines and take the hooks away. Layers of the project keep the paths of their scenes."""
        if self._hooks is not None:
            QgsPathResolver.removePathPreprocessor(self._hooks[0])
            QgsPathResolver.removePathWriter(self._hooks[1])
            # As qgis_process ends, its project went before, connections and all.
            with contextlib.suppress(TypeError, RuntimeError):
                QgsProject.instance().layersAdded.disconnect(self._added)
                QgsProject.instance().layersRemoved.disconnect(self._release)
            self._hooks = None
        for layer, scene in list(self._layers()):
            _set_source(layer, scene)
        self._drop(list(self._servers))

    def _drop(self, paths: list[str]) -> None:
        _stop([self._servers.pop(path) for path in paths])

    def _path(self, path: str) -> str:
        """What a project writes instead of an address."""
        return self.scene(path) or path

    def _read_path(self, path: str) -> str:
        """What a project reads instead of a scene's path."""
        if not path.lower().endswith((".ltchm", ".zarr")):
            return path
        absolute = os.path.join(QgsProject.instance().absolutePath(), path)
        # A project in a GeoPackage or database has no folder: QGIS finds the path itself, and `_added` the layer.
        return (os.path.isabs(absolute) and is_scene(absolute) and self._source_or_tell(absolute)) or path

    def _source_or_tell(self, path: str) -> str | None:
        """`source`; or None, and why is told: once, though reading a project asks for each scene several times."""
        path, now = os.path.abspath(path), time.monotonic()
        self._failed = {p: failure for p, failure in self._failed.items() if now - failure[1] < _FORGIVEN}
        if path in self._failed:
            return None
        try:
            return self.source(path)
        except engine.EngineError as error:
            without = isinstance(error, engine.EngineMissing)
            text = str(error) if without else f"{os.path.basename(path)}: {error}"
            if text not in [told for told, _ in self._failed.values()]:
                self.problem.emit(text)
            self._failed[path] = text, time.monotonic()
            return None

    def _layers(self) -> Iterator[tuple[QgsRasterLayer, str]]:
        for layer in QgsProject.instance().mapLayers().values():
            scene = self.scene(layer.source()) if isinstance(layer, QgsRasterLayer) else None
            if scene is not None:
                yield layer, scene

    def _added(self, layers: list[QgsMapLayer]) -> None:
        """Serve layers that still have a scene's path, as those from GeoPackages, layer files and before an upgrade."""
        for layer in layers:
            if isinstance(layer, QgsRasterLayer) and not layer.isValid() and is_scene(layer.source()):
                source = self._source_or_tell(layer.source())
                if source is not None:
                    _set_source(layer, source)
        for layer, scene in self._layers():
            self._servers[scene].shown = True
            _name_scene(layer, scene)  # the project may have been moved, and its scenes with it

    def _follow(self, old: _Server, source: str) -> None:
        """Another engine serves a scene: layers of the old one go on with it."""
        for layer in QgsProject.instance().mapLayers().values():
            if isinstance(layer, QgsRasterLayer) and layer.source() == _PREFIX + old.url:
                _set_source(layer, source)
        _stop([old])

    def _release(self, *_ignored: object) -> None:
        used = {scene for _, scene in self._layers()}
        self._drop([path for path, server in list(self._servers.items()) if server.shown and path not in used])

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
            self.source(path)  # which the layers follow
        except engine.EngineError as error:
            self.problem.emit(f"{name}: {error}")
            return
        self.problem.emit(tr("The LTCHM engine of {scene} crashed and was started again.").format(scene=name))


def _name_scene(layer: QgsRasterLayer, scene: str) -> None:
    """Tell in the layer's information which scene it shows: its source is an address that says nothing."""
    metadata = layer.metadata()
    metadata.setIdentifier(scene)
    layer.setMetadata(metadata)


def _set_source(layer: QgsRasterLayer, source: str) -> None:
    layer.setDataSource(source, layer.name(), "gdal", QgsDataProvider.ProviderOptions())
    layer.triggerRepaint()


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
