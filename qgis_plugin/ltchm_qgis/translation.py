"""Texts in the user's language. Every text the user sees goes through `tr`, with its words as one literal."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QTranslator

__all__ = ["CONTEXT", "install", "tr"]

CONTEXT = "LTCHM"
_FOLDER = Path(__file__).parent / "i18n"


def tr(text: str) -> str:
    """The text in the language of QGIS."""
    return QCoreApplication.translate(CONTEXT, text)


def install(locale: str | None = None) -> QTranslator | None:
    """Load the translation for a locale such as ``zh_CN`` (that of QGIS if None).

    Returns
    -------
    The translator, to be kept as long as it is needed and removed at the end; None if there is none.
    """
    locale = locale or QgsApplication.locale()
    translator = QTranslator()
    for name in (locale.replace("-", "_"), locale[:2]):
        if translator.load(str(_FOLDER / f"ltchm_{name}.qm")):
            QCoreApplication.installTranslator(translator)
            return translator
    return None
