"""The page LTCHM under Settings > Options."""

from __future__ import annotations

import os
from typing import Any

from qgis.core import QgsApplication
from qgis.gui import QgsFileWidget, QgsOptionsPageWidget, QgsOptionsWidgetFactory
from qgis.PyQt import sip
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from . import engine
from .algorithms.base import ICON
from .settings import Settings
from .tasks import EngineTask
from .translation import tr

__all__ = ["OptionsFactory", "OptionsPage", "describe_engine"]


def describe_engine(answer: dict[str, Any]) -> str:
    """What `ltchm about` said, for the user."""
    return tr(
        "LTCHM {version} works.\nPython {python}, device {device} ({name}), protocol {protocol}\nWeights: {weights}"
    ).format(
        version=answer["version"],
        python=answer["python"],
        device=answer["device"],
        name=answer["device_name"],
        protocol=answer["protocol"],
        weights=_weights(answer["weights"]),
    )


def _weights(entries: list[dict[str, str]]) -> str:
    """Those that new scenes are made with, and how many there are for old scenes."""
    current = [entry["tag"] for entry in entries if entry["status"] != "archived"]
    text, older = ", ".join(current) or tr("none"), len(entries) - len(current)
    return tr("{weights} (and {count} older for old scenes)").format(weights=text, count=older) if older else text


class OptionsPage(QgsOptionsPageWidget):
    """Interpreter, device, default quality, preview cache."""

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        settings = Settings()
        self.interpreter = QgsFileWidget()
        self.interpreter.setFilePath(settings.chosen_interpreter)
        self.interpreter.lineEdit().setPlaceholderText(settings.interpreter or tr("Python that has the LTCHM engine"))
        self.device = QComboBox(editable=True)
        self.device.addItems(["auto", "cpu", "cuda", "cuda:1"])
        self.device.setCurrentText(settings.device)
        self.quality = QSpinBox(minimum=1, maximum=100, value=settings.quality)
        self.cache_folder = QgsFileWidget()
        self.cache_folder.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self.cache_folder.setFilePath(settings.chosen_cache_folder)
        self.cache_folder.lineEdit().setPlaceholderText(str(settings.cache_folder))
        self.cache_megabytes = QSpinBox(minimum=0, maximum=100_000, value=settings.cache_megabytes, suffix=" MB")
        self.decoded_megabytes = QSpinBox(minimum=1, maximum=1_000_000, value=settings.decoded_megabytes, suffix=" MB")
        self.test = QPushButton(tr("Test engine"))
        self.test.clicked.connect(self.run_test)
        self.answer = QLabel(wordWrap=True, textInteractionFlags=Qt.TextInteractionFlag.TextSelectableByMouse)
        self.answer.setTextFormat(Qt.TextFormat.PlainText)
        self._task: EngineTask | None = None
        self._build()
        if not settings.interpreter:
            self.answer.setText(engine.guidance())

    def _build(self) -> None:
        engine_box, form = QGroupBox(tr("Engine")), QFormLayout()
        form.addRow(tr("Python interpreter"), self.interpreter)
        form.addRow(tr("Device"), self.device)
        row = QHBoxLayout()
        row.addWidget(self.test)
        row.addStretch()
        form.addRow("", row)
        form.addRow("", self.answer)
        engine_box.setLayout(form)
        compress_box, form = QGroupBox(tr("Compressing")), QFormLayout()
        form.addRow(tr("Default quality"), self.quality)
        form.addRow(tr("Folder of previews"), self.cache_folder)
        form.addRow(tr("Size of previews"), self.cache_megabytes)
        compress_box.setLayout(form)
        open_box, form = QGroupBox(tr("Opened scenes")), QFormLayout()
        form.addRow(tr("Memory for decoded pixels, each"), self.decoded_megabytes)
        open_box.setLayout(form)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(engine_box)
        layout.addWidget(compress_box)
        layout.addWidget(open_box)
        layout.addStretch()

    def run_test(self) -> None:
        """Ask the engine who it is, in the background."""
        interpreter = os.path.expanduser(self.interpreter.filePath().strip()) or Settings().interpreter
        self.test.setEnabled(False)
        self.answer.setText(tr("Testing..."))
        self._task = EngineTask(
            tr("Test of the LTCHM engine"),
            ["about", "--device", self.device.currentText()],
            self._tested,
            hidden=True,
            interpreter=interpreter,
            seconds=60,
        )
        QgsApplication.taskManager().addTask(self._task)

    def _tested(self, answer: dict[str, Any] | None, error: engine.EngineError | None) -> None:
        if sip.isdeleted(self):  # the options were closed meanwhile
            return
        self._task = None
        self.test.setEnabled(True)
        self.answer.setText(describe_engine(answer) if answer is not None else str(error))

    def apply(self) -> None:
        """Called by QGIS when the user says OK."""
        settings = Settings()
        settings.chosen_interpreter = self.interpreter.filePath()
        settings.device = self.device.currentText()
        settings.quality = self.quality.value()
        settings.chosen_cache_folder = self.cache_folder.filePath()
        settings.decoded_megabytes = self.decoded_megabytes.value()
        settings.cache_megabytes = self.cache_megabytes.value()


class OptionsFactory(QgsOptionsWidgetFactory):
    """Makes the page when the options open."""

    def __init__(self):
        super().__init__()
        self.setTitle("LTCHM")

    def icon(self) -> QIcon:
        """Shown in the list of pages."""
        return QIcon(str(ICON))

    def createWidget(self, parent: QWidget) -> OptionsPage:
        """A page with the settings as they are."""
        return OptionsPage(parent)
