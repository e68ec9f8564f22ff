"""Engine commands in QGIS's task manager: in the background, with progress and cancel in the task bar."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from qgis.core import (
    QgsApplication,
    QgsProcessingAlgorithm,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsTask,
)

from . import engine
from .settings import Settings
from .translation import tr

__all__ = ["AlgorithmRun", "EngineTask"]


class EngineTask(QgsTask):
    """One engine command.

    Parameters
    ----------
    title : shown in the task bar
    arguments : command and options
    done : called in the main thread with the result event, or with the error; never once it is abandoned
    hidden : keep it out of the task bar
    interpreter : instead of the one in the settings
    seconds : longest time it may take
    """

    def __init__(
        self,
        title: str,
        arguments: list[str],
        done: Callable[[dict[str, Any] | None, engine.EngineError | None], None],
        hidden: bool = False,
        interpreter: str = "",
        seconds: float = float("inf"),
    ):
        flags = QgsTask.Flag.CanCancel
        if hidden and hasattr(QgsTask.Flag, "Hidden"):  # QGIS 3.26
            flags = flags | QgsTask.Flag.Hidden | QgsTask.Flag.Silent
        super().__init__(title, flags)
        self._arguments, self._done = arguments, done
        self._interpreter, self._seconds = interpreter or Settings().interpreter, seconds
        self._result: dict[str, Any] | None = None
        self._error = engine.EngineError(tr("The LTCHM engine was stopped."))  # unless something else happens
        self._abandoned = False

    def abandon(self) -> None:
        """Stop it and hear no more of it, even if it has ended and only waits to say so."""
        self._abandoned = True
        self.cancel()

    def run(self) -> bool:
        """Called by the task manager in a thread."""
        deadline = time.monotonic() + self._seconds
        try:
            self._result = engine.run(
                self._arguments,
                interpreter=self._interpreter,
                cancelled=lambda: self.isCanceled() or time.monotonic() > deadline,
                progress=lambda done, total: self.setProgress(100 * done / max(total, 1)),
            )
        except engine.EngineCancelled:
            if not self.isCanceled():
                self._error = engine.EngineError(tr("The LTCHM engine did not answer in time."))
            return False
        except engine.EngineError as error:
            self._error = error
            return False
        return True

    def finished(self, _successful: bool) -> None:
        """Called by the task manager in the main thread."""
        if not self._abandoned:
            self._done(self._result, None if self._result is not None else self._error)


class _Feedback(QgsProcessingFeedback):
    """Remembers the first error, which the task itself does not hand on."""

    def __init__(self):
        super().__init__(False)
        self.error = ""

    def reportError(self, error: str, fatalError: bool = False) -> None:
        """Called by the algorithm, in its thread."""
        self.error = self.error or error
        super().reportError(error, fatalError)


class AlgorithmRun:
    """A Processing algorithm as a background task. Lives until it is done.

    Parameters
    ----------
    algorithm : identifier such as ``ltchm:compress``
    parameters : of the algorithm
    title : shown in the task bar
    done : called in the main thread with the results, or with None and a message ("" if cancelled)
    """

    _running: ClassVar[set[AlgorithmRun]] = set()

    def __init__(
        self,
        algorithm: str,
        parameters: dict[str, Any],
        title: str,
        done: Callable[[dict[str, Any] | None, str], None],
    ):
        self._done = done
        self._context, self._feedback = QgsProcessingContext(), _Feedback()
        self._context.setProject(QgsProject.instance())
        found: QgsProcessingAlgorithm = QgsApplication.processingRegistry().createAlgorithmById(algorithm)
        ok, message = found.checkParameterValues(parameters, self._context)
        if not ok:
            done(None, message)
            return
        self._task = QgsProcessingAlgRunnerTask(found, parameters, self._context, self._feedback)
        self._task.setDescription(title)
        self._task.executed.connect(self._executed)
        AlgorithmRun._running.add(self)  # nothing else holds the context while the task runs
        QgsApplication.taskManager().addTask(self._task)

    def cancel(self) -> None:
        """Stop it."""
        self._task.cancel()

    def _executed(self, successful: bool, results: dict[str, Any]) -> None:
        AlgorithmRun._running.discard(self)
        if results.get("OUTPUT"):  # also where the user cancelled too late
            self._done(results, "")
        elif successful or self._feedback.isCanceled():
            self._done(None, "")
        else:
            self._done(None, self._feedback.error or tr("The algorithm failed; the log of QGIS says why."))
