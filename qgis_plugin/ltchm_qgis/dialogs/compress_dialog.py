"""Compress a layer: choose the quality by looking at what it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapLayerProxyModel,
    QgsRasterBandStats,
    QgsRasterDataProvider,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
)
from qgis.gui import QgsFileWidget, QgsMapLayerComboBox
from qgis.PyQt.QtCore import Qt, QTimer, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from ..algorithms.base import scene_filter
from ..algorithms.compress import (
    Guarantee,
    SourceRefused,
    guarantee_texts,
    nodata_arguments,
    precision_arguments,
    source_name,
    user_nodata,
)
from ..engine import EngineError
from ..extents import visible_bounds
from ..previews import PreviewCache
from ..settings import Settings
from ..tasks import EngineTask
from ..texts import psnr_text, size_text
from ..translation import tr
from .preview_widget import PreviewWidget

__all__ = ["CompressDialog"]

_SAMPLES = 8  # tiles coded to estimate the size
_SMALLEST, _DECIMALS = 1e-9, 9  # of a bound; 0 would ask for lossless
_CAREFUL = 0.001  # bound for floats of which nothing is known
_LOOKED_AT = 250_000  # pixels that QGIS takes its statistics from when it first shows a layer
_RANGE = QgsRasterBandStats.Stats.Min | QgsRasterBandStats.Stats.Max
_DELAY = 600  # milliseconds without a change before the engine is asked


def _presets() -> list[tuple[str, int]]:
    return [(tr("Small"), 20), (tr("Balanced"), 50), (tr("Fine"), 85)]


class BoundBox(QDoubleSpinBox):
    """A number above 0, with no more decimals than it needs."""

    def __init__(self) -> None:
        super().__init__(decimals=_DECIMALS, minimum=_SMALLEST, maximum=1e9)
        self.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:
        """Called by Qt."""
        text, point = super().textFromValue(value), self.locale().decimalPoint()
        return text.rstrip("0").rstrip(point) if point in text else text


class CompressDialog(QDialog):
    """Layer, quality with a preview, destination. Once it is accepted, `parameters()` is what the user wants.

    Signals
    -------
    estimated() : the estimate and the preview are there, or why they are not
    """

    estimated = pyqtSignal()

    def __init__(
        self,
        layer: QgsRasterLayer | None = None,
        view: QgsReferencedRectangle | None = None,
        parent: QWidget | None = None,
    ):
        super().__init__(parent)
        self.setWindowTitle(tr("Compress layer"))
        self._view = view
        self._task: EngineTask | None = None
        self._engine = ""  # which engine makes the previews, once it has said so
        self._suggested = ""
        self._timer = QTimer(self, singleShot=True, interval=_DELAY)
        self._timer.timeout.connect(self._estimate)
        self._build()
        if layer is not None:
            self._layers.setLayer(layer)
        self._layer_changed()

    # --- what the user chose -----------------------------------------------------------------------------------------

    @property
    def layer(self) -> QgsRasterLayer | None:
        """The chosen layer."""
        return self._layers.currentLayer()

    @property
    def opens(self) -> bool:
        """Whether the compressed scene shall be opened as a layer."""
        return self._open.isChecked()

    @property
    def guarantee(self) -> Guarantee:
        """What the user wants to be sure of."""
        return Guarantee(self.guarantees.currentIndex())

    def parameters(self) -> dict[str, Any]:
        """Of `ltchm:compress`."""
        return {
            "INPUT": self.layer.id(),
            "QUALITY": self.quality.value(),
            "GUARANTEE": int(self.guarantee),
            "MAX_ERROR": self.max_error.value(),
            "MEASURE": self._measure.isChecked(),
            "OUTPUT": self.destination.filePath(),
        }

    def accept(self) -> None:
        """Called when the user says *Compress*."""
        path = self.destination.filePath()
        if not os.path.exists(path) or self._replaces(path):
            super().accept()

    def _replaces(self, path: str) -> bool:
        question = tr("{scene} exists already. Replace it when the new one is complete?").format(scene=path)
        answer = QMessageBox.question(self, self.windowTitle(), question)
        return answer == QMessageBox.StandardButton.Yes

    # --- the window --------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._layers = QgsMapLayerComboBox()
        self._layers.setFilters(QgsMapLayerProxyModel.Filter.RasterLayer)
        self._layers.layerChanged.connect(self._layer_changed)
        self._about = QLabel(wordWrap=True)
        self.destination = QgsFileWidget()
        self.destination.setStorageMode(QgsFileWidget.StorageMode.SaveFile)
        self.destination.setFilter(scene_filter())
        self.destination.setConfirmOverwrite(False)  # `accept` asks, however the name came about
        self.destination.fileChanged.connect(self._check)
        self._measure = QCheckBox(tr("Measure what was lost"), checked=True)
        self._open = QCheckBox(tr("Open the compressed scene when it is done"), checked=True)
        form = QFormLayout()
        form.addRow(tr("Layer"), self._layers)
        form.addRow("", self._about)
        form.addRow(tr("Guarantee"), self._guarantee_row())
        form.addRow(tr("Quality"), self._quality_row())
        form.addRow(tr("Estimate"), self._estimate_row())
        self.preview = PreviewWidget()
        ending = QFormLayout()
        ending.addRow(tr("Save as"), self.destination)
        choices = QHBoxLayout()
        choices.addWidget(self._open)
        choices.addWidget(self._measure)
        choices.addStretch()
        ending.addRow("", choices)
        self._buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self._go = QPushButton(tr("Compress"), default=True)
        self._buttons.addButton(self._go, QDialogButtonBox.ButtonRole.AcceptRole)
        self._buttons.accepted.connect(self.accept)
        self._buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.preview, 1)
        layout.addLayout(ending)
        layout.addWidget(self._buttons)
        self.finished.connect(self._stop)

    def _guarantee_row(self) -> QHBoxLayout:
        self.guarantees = QComboBox()
        self.guarantees.addItems(guarantee_texts())
        self.guarantees.currentIndexChanged.connect(self._guarantee_changed)
        self.max_error = BoundBox()
        self.max_error.setEnabled(False)
        self.max_error.setToolTip(tr("In the unit of the data, for every band."))
        self.max_error.valueChanged.connect(self._later)
        row = QHBoxLayout()
        row.addWidget(self.guarantees, 1)
        row.addWidget(self.max_error)
        return row

    def _guarantee_changed(self, *_ignored: object) -> None:
        self.max_error.setEnabled(self.guarantee == Guarantee.MAX_ERROR)
        for widget in self._quality_widgets:
            widget.setEnabled(self.guarantee == Guarantee.QUALITY)
        self._later()

    def _quality_row(self) -> QHBoxLayout:
        self.quality = QSpinBox(minimum=1, maximum=100, value=Settings().quality)
        slider = QSlider(Qt.Orientation.Horizontal, minimum=1, maximum=100, value=self.quality.value())
        slider.setToolTip(tr("The higher, the closer to the original and the larger."))
        slider.valueChanged.connect(self.quality.setValue)
        self.quality.valueChanged.connect(slider.setValue)
        self.quality.valueChanged.connect(self._later)
        row = QHBoxLayout()
        row.addWidget(slider, 1)
        row.addWidget(self.quality)
        for name, value in _presets():
            button = QPushButton(name, autoDefault=False)
            button.clicked.connect(lambda _checked, value=value: self.quality.setValue(value))
            row.addWidget(button)
        self._quality_widgets = [row.itemAt(number).widget() for number in range(row.count())]
        return row

    def _estimate_row(self) -> QHBoxLayout:
        self.summary = QLabel(wordWrap=True, textInteractionFlags=Qt.TextInteractionFlag.TextSelectableByMouse)
        self.summary.setTextFormat(Qt.TextFormat.PlainText)
        row = QHBoxLayout()
        row.addWidget(self.summary, 1)
        return row

    # --- reacting ----------------------------------------------------------------------------------------------------

    def _layer_changed(self, *_ignored: object) -> None:
        layer = self.layer
        if layer is None:
            self._about.setText(tr("The project has no raster layer."))
        else:
            self._about.setText(_facts(layer) if layer.isValid() else "")
            self.max_error.setValue(_suggested_bound(layer.dataProvider()) if layer.isValid() else 1.0)
        if layer is not None and self.destination.filePath() == self._suggested:
            self._suggested = _suggestion(layer)
            self.destination.setFilePath(self._suggested)
        self._later()
        self._check()

    def _check(self, *_ignored: object) -> None:
        self._go.setEnabled(self._refusal() == "" and self.destination.filePath() != "")

    def _refusal(self) -> str:
        if self.layer is None:
            return tr("The project has no raster layer.")
        try:
            source_name(self.layer)
        except SourceRefused as refused:
            return str(refused)
        return ""

    # --- estimate ----------------------------------------------------------------------------------------------------

    def _later(self, *_ignored: object) -> None:
        """Estimate soon, unless something changes again."""
        self._stop()
        refusal = self._refusal()
        if refusal:
            self.summary.setText("")
            self.preview.show_message(refusal)
            return
        self.preview.fade()
        self._timer.start()

    def _stop(self, *_ignored: object) -> None:
        self._timer.stop()
        if self._task is not None:
            self._task.abandon()
            self._task = None

    def _run(self, arguments: list[str], use: Callable[[dict[str, Any]], None]) -> None:
        """Have the engine do something, and use its result, unless `_stop` comes before."""

        def done(result: dict[str, Any] | None, error: EngineError | None) -> None:
            self._task = None
            if result is None:
                self._fail(str(error))
            else:
                use(result)

        self._task = EngineTask(tr("Preview of compression"), arguments, done, hidden=True)
        QgsApplication.taskManager().addTask(self._task)

    def _ask_engine(self) -> None:
        """Ask the engine who it is, then estimate: another one, or one that was updated, makes other previews."""

        def use(answer: dict[str, Any]) -> None:
            self._engine = repr((answer["version"], answer["weights"]))
            self._estimate()

        self._run(["about"], use)

    def _estimate(self) -> None:
        if not self._engine:
            self._ask_engine()
            return
        settings = Settings()
        cache = PreviewCache(settings.cache_folder, settings.cache_megabytes)
        source = source_name(self.layer)
        choices = precision_arguments(self.guarantee, self.quality.value(), self.max_error.value())
        choices += nodata_arguments(self.layer)
        bounds = visible_bounds(self.layer, self._view)
        place = cache.place(source, choices, bounds, self._engine, settings.interpreter, settings.device)
        found = cache.find(place)
        if found is not None:
            self._show(found)
            return
        try:
            cache.make(place)
        except OSError as error:
            self._fail(_not_stored(place, error))
            return
        self.summary.setText(tr("Estimating..."))

        def use(result: dict[str, Any]) -> None:
            self._show(result)
            try:
                cache.keep(place, result)
            except OSError as error:  # it is shown, and will be made again when it is wanted again
                QgsApplication.messageLog().logMessage(_not_stored(place, error), "LTCHM", Qgis.MessageLevel.Warning)

        arguments = ["estimate", source, *choices, "--samples", str(_SAMPLES)]
        arguments += ["--bounds", *bounds, "--images", str(place), "--device", settings.device]
        self._run(arguments, use)

    def _show(self, found: dict[str, Any]) -> None:
        text = tr("about {size} ({low} to {high}), {ratio} times smaller than its pixels").format(
            size=size_text(found["bytes"]),
            low=size_text(found["bytes_low"]),
            high=size_text(found["bytes_high"]),
            ratio=f"{found['ratio']:.1f}",
        )
        if found.get("source_bytes"):
            text += "; " + tr("the source file has {size}").format(size=size_text(found["source_bytes"]))
        quality = psnr_text(found["psnr"])
        if quality:
            text += "; " + tr("{psnr} in the preview").format(psnr=quality)
        self.summary.setText(text)
        images = found["images"]
        self.preview.show_pictures(
            [
                (tr("Original"), images["original"]),
                (tr("Restored"), images["restored"]),
                (tr("Difference, {times} times").format(times=found["amplification"]), images["difference"]),
            ]
        )
        self.estimated.emit()

    def _fail(self, message: str) -> None:
        self.summary.setText(tr("not available"))
        self.preview.show_message(message)
        self.estimated.emit()


def _facts(layer: QgsRasterLayer) -> str:
    provider = layer.dataProvider()
    facts = [
        tr("{width} x {height} pixels").format(width=layer.width(), height=layer.height()),
        tr("{count} bands").format(count=layer.bandCount()),
        Qgis.DataType(provider.sourceDataType(1)).name,
        layer.crs().authid() or tr("no CRS"),
    ]
    bands = range(1, layer.bandCount() + 1)
    nodata = {provider.sourceNoDataValue(band) for band in bands if provider.sourceHasNoDataValue(band)}
    named = user_nodata(layer)
    nodata |= set() if named is None else {named}
    if nodata:
        facts.append(tr("nodata {values}").format(values=", ".join(f"{value:g}" for value in sorted(nodata))))
    return ", ".join(facts)


def _suggested_bound(provider: QgsRasterDataProvider) -> float:
    """Largest error to begin with: 1 for integers, a thousandth of the range of floats as far as QGIS knows it."""
    if provider.sourceDataType(1) not in (Qgis.DataType.Float32, Qgis.DataType.Float64):
        return 1.0
    looked_at = (_RANGE, QgsRectangle(), _LOOKED_AT)
    bands = range(1, provider.bandCount() + 1)
    known = [provider.bandStatistics(n, *looked_at) for n in bands if provider.hasStatistics(n, *looked_at)]
    ranges = [band.maximumValue - band.minimumValue for band in known if band.maximumValue > band.minimumValue]
    return float(f"{min(ranges) / 1000:.0e}") if ranges else _CAREFUL


def _not_stored(place: Path, error: OSError) -> str:
    return tr("Previews cannot be stored in {folder}: {reason}").format(folder=place.parent, reason=error)


def _suggestion(layer: QgsRasterLayer) -> str:
    """Beside the source if it is a plain file there, else in the user's folder."""
    source = layer.source().split("|")[0]
    folder = os.path.dirname(source) if os.path.isfile(source) else str(Path.home())
    name = Path(source).stem if os.path.isfile(source) else layer.name()
    return os.path.join(folder, f"{name}.ltchm")
