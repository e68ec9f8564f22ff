"""What the user chose under Settings > Options > LTCHM, and what is remembered from one time to the next."""

from __future__ import annotations

import os
from pathlib import Path

from qgis.core import QgsSettings
from qgis.PyQt.QtCore import QStandardPaths

__all__ = ["DEFAULT_QUALITY", "Settings", "suggested_folder", "suggested_interpreter"]

DEFAULT_QUALITY = 50
_DEFAULT_CACHE_MB = 200
_DEFAULT_DECODED_MB = 256
_PREFIX = "ltchm/"


def suggested_folder() -> Path:
    """Where the guidance tells to install the engine; looked at when nothing else is said."""
    return Path.home() / "ltchm-engine"


def suggested_interpreter() -> Path:
    """Python of the suggested folder."""
    return suggested_folder() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


class Settings:
    """Reads and writes QGIS's settings; every property is looked up anew."""

    @property
    def interpreter(self) -> str:
        """Python that has ltchm_geo, or "" if there is none.

        The user's choice, else the variable LTCHM_PYTHON, else the suggested place if something is there.
        """
        chosen = self.chosen_interpreter or os.environ.get("LTCHM_PYTHON", "")
        if chosen:
            return os.path.expanduser(chosen)
        return str(suggested_interpreter()) if suggested_interpreter().exists() else ""

    @property
    def chosen_interpreter(self) -> str:
        """The user's choice of an interpreter; "" to find it."""
        return self._text("interpreter")

    @chosen_interpreter.setter
    def chosen_interpreter(self, value: str) -> None:
        self._set("interpreter", value.strip())

    @property
    def device(self) -> str:
        """Where to compute: "auto", "cpu", "cuda", ..."""
        return self._text("device") or "auto"

    @device.setter
    def device(self, value: str) -> None:
        self._set("device", value.strip())

    @property
    def quality(self) -> int:
        """Quality that dialogs start with, 1 to 100."""
        return max(1, min(100, self._number("quality", DEFAULT_QUALITY)))

    @quality.setter
    def quality(self, value: int) -> None:
        self._set("quality", value)

    @property
    def cache_folder(self) -> Path:
        """Folder of preview pictures, and of nothing else: one of our own inside the chosen one."""
        caches = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.CacheLocation)
        return Path(self.chosen_cache_folder or caches).expanduser() / "ltchm-previews"

    @property
    def chosen_cache_folder(self) -> str:
        """The user's choice of a folder to keep preview pictures in; "" for the user's caches."""
        return self._text("cache_folder")

    @chosen_cache_folder.setter
    def chosen_cache_folder(self, value: str) -> None:
        self._set("cache_folder", value.strip())

    @property
    def scene_folder(self) -> str:
        """Where a scene was opened last."""
        return self._text("scene_folder")

    @scene_folder.setter
    def scene_folder(self, value: str) -> None:
        self._set("scene_folder", value)

    @property
    def cache_megabytes(self) -> int:
        """Size that preview pictures may take on disk."""
        return max(0, self._number("cache_megabytes", _DEFAULT_CACHE_MB))

    @cache_megabytes.setter
    def cache_megabytes(self, value: int) -> None:
        self._set("cache_megabytes", value)

    @property
    def decoded_megabytes(self) -> int:
        """Memory for decoded pixels of an opened scene."""
        return max(1, self._number("decoded_megabytes", _DEFAULT_DECODED_MB))

    @decoded_megabytes.setter
    def decoded_megabytes(self, value: int) -> None:
        self._set("decoded_megabytes", value)

    @staticmethod
    def _text(key: str) -> str:
        return str(QgsSettings().value(_PREFIX + key, "") or "")

    def _number(self, key: str, default: int) -> int:
        try:
            return int(self._text(key) or default)
        except ValueError:
            return default

    @staticmethod
    def _set(key: str, value: object) -> None:
        QgsSettings().setValue(_PREFIX + key, value)
