"""What to do when there is no engine, and other messages too long for the message bar."""

from __future__ import annotations

from qgis.gui import QgisInterface
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QDialog, QDialogButtonBox, QLabel, QVBoxLayout

from ..translation import tr

__all__ = ["show_guidance"]


def show_guidance(iface: QgisInterface, title: str, text: str) -> QDialog:
    """Show text that can be copied, and a way to the options. Does not wait: a project being read goes on."""
    dialog = QDialog(iface.mainWindow())
    dialog.setObjectName("ltchm_guidance")
    dialog.setWindowTitle("LTCHM")
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    heading = QLabel(f"<b>{title}</b>")
    words = QLabel(text, wordWrap=max(map(len, text.splitlines())) > 120)
    words.setTextFormat(Qt.TextFormat.PlainText)
    words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    words.setMinimumWidth(560)
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
    options = buttons.addButton(tr("Open the options"), QDialogButtonBox.ButtonRole.ActionRole)
    options.clicked.connect(lambda: iface.showOptionsDialog(iface.mainWindow(), "LTCHM"))
    buttons.rejected.connect(dialog.close)
    layout = QVBoxLayout(dialog)
    layout.setSpacing(12)
    for widget in (heading, words, buttons):
        layout.addWidget(widget)
    dialog.open()
    return dialog
