"""Every error the library raises on purpose.

All share the root `LtchmError`; each also inherits the builtin a caller would expect, so code that knows nothing of
this library can still catch it. Messages are one line, name the file or tile, and say what to do.
"""

from __future__ import annotations


class LtchmError(Exception):
    """Root of all errors raised by ltchm_geo. `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(LtchmError, ValueError):
    """An argument that cannot be honoured (bad quality, unknown device, contradictory options)."""

    exit_code = 2


# --- the raster that goes in -----------------------------------------------------------------------------------------


class SourceError(LtchmError, OSError):
    """The source cannot be opened as a raster: missing, empty, truncated, or not a raster at all."""

    exit_code = 2


class SourceReadError(SourceError):
    """The source opened, but some of its pixels cannot be read."""

    exit_code = 1


class UnsupportedRasterError(LtchmError, ValueError):
    """A raster that lossy coding would mangle: paletted, class, complex, or an unsupported data type."""

    exit_code = 2


class AlreadyCompressedError(UnsupportedRasterError):
    """The source is itself a compressed scene; compressing again would only lose quality."""


# --- the file that comes out -----------------------------------------------------------------------------------------


class DestinationError(LtchmError, OSError):
    """The destination cannot be written: no such folder, no permission, disk full."""


class DestinationExistsError(DestinationError, FileExistsError):
    """The destination exists and overwriting was not asked for."""

    exit_code = 2


class DestinationBusyError(DestinationError):
    """Another process is writing the same destination right now."""


# --- archives --------------------------------------------------------------------------------------------------------


class ArchiveError(LtchmError, RuntimeError):
    """An archive cannot go on: its journal is damaged, or the disk is nearly full."""


# --- clusters --------------------------------------------------------------------------------------------------------


class ClusterError(LtchmError, RuntimeError):
    """A cluster cannot do the work: no scheduler, workers that die, other versions or other files there."""


# --- object stores ---------------------------------------------------------------------------------------------------


class ObjectStoreError(LtchmError, OSError):
    """An object store cannot be reached, refuses, or answers nonsense. Says nothing about the scene."""


class ObjectMissingError(ObjectStoreError, FileNotFoundError):
    """There is no such object."""


# --- compressed scenes -----------------------------------------------------------------------------------------------


class ContainerError(LtchmError, ValueError):
    """Root of everything that can be wrong with a compressed scene."""


class NotAContainerError(ContainerError):
    """The file is not a compressed scene."""

    exit_code = 2


class IncompleteContainerError(ContainerError):
    """The scene was not finished: its manifest is missing or does not say `complete`."""


class UnsupportedVersionError(ContainerError):
    """The scene was written in a newer format than this software reads."""


class VerificationError(ContainerError):
    """A scene that was just written does not decode to what went into it, or misses what was asked of it."""


class CorruptContainerError(ContainerError):
    """The scene's structure (zip directory, JSON, indices) is damaged or hostile."""


class CorruptTileError(ContainerError):
    """One tile is damaged. `array` and `tile` name it when known."""

    def __init__(self, message: str, *, array: str | None = None, tile: tuple[int, int] | None = None):
        super().__init__(message)
        self.array = array
        self.tile = tile


class DesynchronisedError(CorruptTileError):
    """A tile's entropy stream did not end in the state its checksum demands."""


# --- the network -----------------------------------------------------------------------------------------------------


class WeightsError(LtchmError, ValueError):
    """Root of everything that can be wrong with a weights file."""


class WeightsNotFoundError(WeightsError, LookupError):
    """No weights with this tag or hash are installed."""


class WeightsHashError(WeightsError):
    """A weights file is not the file its manifest, or the scene, names."""


class InvalidWeightsError(WeightsError):
    """A weights file is malformed, or its integers break a bound that exactness needs."""


class DeviceError(LtchmError, RuntimeError):
    """The asked-for device is not there, or has too little memory."""

    exit_code = 2


def installing(extra: str) -> str:
    """What to do where a package is missing that one of the optional parts needs."""
    return f'pip install ".[{extra}]" in a checkout of ltchm_geo'
