"""Three pictures of the same place side by side, moved and zoomed together."""

from __future__ import annotations

from qgis.PyQt.QtCore import QPoint, QPointF, QRect, QRectF, QSize, Qt
from qgis.PyQt.QtGui import QMouseEvent, QPainter, QPaintEvent, QPixmap, QWheelEvent
from qgis.PyQt.QtWidgets import QSizePolicy, QWidget

from ..translation import tr

__all__ = ["PreviewWidget"]

_GAP, _TITLE = 6, 22
_MAX_ZOOM = 16.0
_NOTCH, _STEP = 120, 1.25  # eighths of a degree that a wheel clicks by, and what that zooms


class PreviewWidget(QWidget):
    """Pictures in columns. The wheel zooms, dragging moves, a double click shows all."""

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._pictures: list[tuple[str, QPixmap]] = []
        self._message = ""
        self._stale = False
        self._zoom, self._centre = 1.0, QPointF(0.5, 0.5)  # 1 fits the column; centre in parts of the picture
        self._dragged: QPoint | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(540, 200)
        self.setToolTip(tr("Wheel: zoom. Drag: move. Double click: show all."))

    def sizeHint(self) -> QSize:
        """Room for three pictures."""
        return QSize(900, 320)

    def show_pictures(self, pictures: list[tuple[str, str]]) -> None:
        """Show (title, path of a picture) in columns; keeps zoom and place if the size stays."""
        loaded = [(title, QPixmap(path)) for title, path in pictures]
        if [p.size() for _, p in loaded] != [p.size() for _, p in self._pictures]:
            self._zoom, self._centre = 1.0, QPointF(0.5, 0.5)
        self._pictures, self._message, self._stale = loaded, "", False
        self.update()

    def show_message(self, message: str) -> None:
        """Show words instead."""
        self._pictures, self._message = [], message
        self.update()

    def fade(self) -> None:
        """Mark the pictures as those of another choice, while new ones are made."""
        self._stale = True
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw the columns."""
        painter = QPainter(self)
        painter.setPen(self.palette().windowText().color())
        if not self._pictures:
            painter.fillRect(self.rect(), self.palette().base())
            flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(self.rect().adjusted(20, 20, -20, -20), int(flags), self._message)
            return
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, self._scale() < 1)
        for column, (title, picture) in enumerate(self._pictures):
            area = self._area(column)
            top = max(0, round(self._target(area).top()) - _TITLE)
            painter.drawText(QRect(area.x(), top, area.width(), _TITLE), int(Qt.AlignmentFlag.AlignCenter), title)
            painter.setOpacity(0.35 if self._stale else 1.0)
            painter.setClipRect(area)
            painter.drawPixmap(self._target(area), picture, QRectF(picture.rect()))
            painter.setClipping(False)
            painter.setOpacity(1.0)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom; what lies under the cursor stays there."""
        turned = event.angleDelta().y()
        if not turned or not self._pictures:
            event.ignore()
            return
        before = self._zoom
        self._zoom = max(1.0, min(_MAX_ZOOM, before * _STEP ** (turned / _NOTCH)))
        self._move(self._from_middle(event.position()) * (1 - self._zoom / before))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin to move."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._dragged = event.pos()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Move all pictures."""
        if self._dragged is not None:
            self._move(QPointF(event.pos() - self._dragged))
            self._dragged = event.pos()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Stop moving."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._dragged = None

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Show all."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._zoom = 1.0
            self._move(QPointF(0, 0))

    def _area(self, column: int) -> QRect:
        count = len(self._pictures)
        width = (self.width() - _GAP * (count - 1)) // count
        return QRect(column * (width + _GAP), _TITLE, width, self.height() - _TITLE)

    def _from_middle(self, place: QPointF) -> QPointF:
        """A place in the window, seen from the middle of the column it lies in."""
        column = int(place.x()) // (self._area(0).width() + _GAP)
        return place - QRectF(self._area(min(column, len(self._pictures) - 1))).center()

    def _scale(self) -> float:
        area, picture = self._area(0), self._pictures[0][1]
        fit = min(area.width() / max(picture.width(), 1), area.height() / max(picture.height(), 1))
        return fit * self._zoom

    def _target(self, area: QRect) -> QRectF:
        picture, scale = self._pictures[0][1], self._scale()
        width, height = picture.width() * scale, picture.height() * scale
        middle = QRectF(area).center()
        return QRectF(middle.x() - width * self._centre.x(), middle.y() - height * self._centre.y(), width, height)

    def _move(self, by: QPointF) -> None:
        if not self._pictures:
            return
        area, target = self._area(0), self._target(self._area(0))
        x = self._centre.x() - by.x() / max(target.width(), 1)
        y = self._centre.y() - by.y() / max(target.height(), 1)
        # No further than the picture's edge at the column's.
        half_x, half_y = area.width() / max(target.width(), 1) / 2, area.height() / max(target.height(), 1) / 2
        self._centre = QPointF(_between(x, half_x), _between(y, half_y))
        self.update()


def _between(value: float, half: float) -> float:
    return 0.5 if half >= 0.5 else max(half, min(1 - half, value))
