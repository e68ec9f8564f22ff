"""What to do when there is no engine, and other things too long for the message bar."""

from __future__ import annotations

import html

from qgis.gui import QgisInterface
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QDialog, QDialogButtonBox, QLabel, QVBoxLayout

from ..texts import table
from ..translation import tr

__all__ = ["show_facts", "show_guidance"]


def show_guidance(iface: QgisInterface, title: str, text: str) -> QDialog:
    """Show text, and a way to the options."""
    words = QLabel(text, wordWrap=max(map(len, text.splitlines())) > 120)
    words.setTextFormat(Qt.TextFormat.PlainText)
    dialog, buttons = _dialog(iface, "ltchm_guidance", title, words)
    options = buttons.addButton(tr("Open the options"), QDialogButtonBox.ButtonRole.ActionRole)
    options.clicked.connect(lambda: iface.showOptionsDialog(iface.mainWindow(), "LTCHM"))
    dialog.open()
    return dialog


def show_facts(iface: QgisInterface, title: str, facts: list[tuple[str, str]]) -> QDialog:
    """Show labelled lines as a table."""
    words = QLabel(table(facts), wordWrap=True)
    words.setTextFormat(Qt.TextFormat.RichText)
    dialog, _ = _dialog(iface, "ltchm_facts", title, words)
    dialog.open()
    return dialog


def _dialog(iface: QgisInterface, name: str, title: str, words: QLabel) -> tuple[QDialog, QDialogButtonBox]:
    """Words that can be copied. Once open, it does not wait: a project being read goes on."""
    dialog = QDialog(iface.mainWindow())
    dialog.setObjectName(name)
    dialog.setWindowTitle("LTCHM")
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    words.setMinimumWidth(560)
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
    buttons.rejected.connect(dialog.close)
    layout = QVBoxLayout(dialog)
    layout.setSpacing(12)
    for widget in (QLabel(f"<b>{html.escape(title)}</b>"), words, buttons):
        layout.addWidget(widget)
    return dialog, buttons
