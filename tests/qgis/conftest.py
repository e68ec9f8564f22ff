"""Fixtures: the plugin in a QGIS without a screen, and engines real and fake."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SCENE = ROOT / "examples" / "data" / "farmland_rgbn.tif"
PLUGINS = ROOT / "qgis_plugin"

sys.path.insert(0, str(PLUGINS))

Fake = Callable[[str], str]
_STATUS = pytest.StashKey[int]()


def engine_python() -> str:
    """The Python that has ltchm_geo: LTCHM_PYTHON, else the repository's .venv."""
    return os.environ.get("LTCHM_PYTHON") or str(ROOT / ".venv" / "bin" / "python")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End without taking QGIS apart: Python does that in no order, and QGIS then crashes now and then.

    The status is that of the tests. How QGIS ends with the plugin in it is for drive_desktop.py to see.
    """
    if _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])


@pytest.fixture(autouse=True)
def clean_settings(qgis_app, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of an earlier test or of this machine; the engine comes from the environment."""
    from qgis.core import QgsSettings

    QgsSettings().remove("ltchm")
    monkeypatch.setenv("LTCHM_PYTHON", engine_python())
    monkeypatch.setenv("HOME", str(tmp_path))  # where an engine would be looked for
    yield
    QgsSettings().remove("ltchm")


@pytest.fixture(scope="module")
def provider(qgis_app, qgis_processing):
    """The provider, registered as the plugin does it."""
    from ltchm_qgis.provider import LtchmProvider
    from qgis.core import QgsApplication

    provider = LtchmProvider()
    QgsApplication.processingRegistry().addProvider(provider)
    yield provider
    QgsApplication.processingRegistry().removeProvider(provider)


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressed scene, made by the engine's own command line."""
    path = tmp_path_factory.mktemp("scene") / "farmland.ltchm"
    _ltchm("compress", str(DATA / "farmland_rgbn_u8_nodata0.tif"), str(path), "--quality", "30")
    return path


@pytest.fixture(scope="session")
def restored(compressed: Path) -> Path:
    """What decompressing that scene gives."""
    path = compressed.with_name("restored.tif")
    _ltchm("decompress", str(compressed), str(path))
    return path


def _ltchm(*arguments: str) -> None:
    subprocess.run([engine_python(), "-I", "-m", "ltchm_geo", *arguments], check=True, capture_output=True)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small raster of its own."""
    return Path(shutil.copy(DATA / "tokyo_l8_u16.tif", tmp_path / "tokyo.tif"))


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Make an interpreter out of Python code: ``fake("print('hello')")`` gives its path."""

    def make(code: str) -> str:
        path = tmp_path / "fake-python"
        path.write_text(f"#!{sys.executable}\nimport json, os, signal, sys, time\n{code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make
