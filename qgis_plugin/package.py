"""Make the zip that QGIS installs: `python qgis_plugin/package.py [FOLDER]` writes FOLDER/ltchm_qgis-VERSION.zip."""

from __future__ import annotations

import configparser
import sys
import zipfile
from pathlib import Path

__all__ = ["build", "files"]

HERE = Path(__file__).parent
PLUGIN = HERE / "ltchm_qgis"
_LEFT_OUT = {".ts", ".pyc"}
_TIME = (1980, 1, 1, 0, 0, 0)  # the same files give the same zip


def files() -> list[Path]:
    """What goes in, below qgis_plugin: the plugin without caches and translation sources."""
    found = (path for path in PLUGIN.rglob("*") if path.is_file() and path.suffix not in _LEFT_OUT)
    return sorted(path.relative_to(HERE) for path in found)


def version() -> str:
    """The version metadata.txt tells."""
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(PLUGIN / "metadata.txt", encoding="utf-8")
    return metadata["general"]["version"]


def build(folder: Path) -> Path:
    """Write the zip into a folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"ltchm_qgis-{version()}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files():
            archive.writestr(zipfile.ZipInfo(path.as_posix(), _TIME), (HERE / path).read_bytes(), zipfile.ZIP_DEFLATED)
        licence = zipfile.ZipInfo("ltchm_qgis/LICENSE", _TIME)
        archive.writestr(licence, (HERE.parent / "LICENSE").read_bytes(), zipfile.ZIP_DEFLATED)
    return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
