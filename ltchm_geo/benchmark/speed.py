"""Speed of whole files: raster to scene and back, by stage, beside another codec on the same scene."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ltchm_geo.benchmark.output import markdown_table
from ltchm_geo.benchmark.timing import Pair, Sample, Seconds, Tick, take_turns, timed
from ltchm_geo.compress import compress_raster
from ltchm_geo.decompress import decompress_raster
from ltchm_geo.engine import Engine, load_engine
from ltchm_geo.errors import UsageError

__all__ = ["STAGES", "Case", "CodecSpeed", "codec_markdown", "configured", "measure_codec"]

#: Columns of the tables, and the codec's own stages that make them up.
STAGES = {
    "network": ("network",),
    "parameters": ("parameters",),
    "entropy": ("entropy",),
    "tiles": ("tiles",),
    "I/O": ("read", "write", "survey", "overviews"),
}


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes
    ----------
    model : tag of the weights
    device : "cpu", "cuda", ...
    threads : CPU cores to use
    batch : tiles per pass through g_a or g_s
    """

    model: str
    device: str
    threads: int
    batch: int

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.model}, {self.device}, {self.threads} thr., batch {self.batch}"


@dataclass(frozen=True)
class Run:
    """Once there and back: times, seconds and CPU seconds by stage summed over threads, and the file's size."""

    encode: Sample
    decode: Sample
    encode_stages: Mapping[str, float]
    decode_stages: Mapping[str, float]
    encode_cpu: Mapping[str, float]
    decode_cpu: Mapping[str, float]
    bytes: int


@dataclass(frozen=True)
class CodecSpeed:
    """Speed of one case, or of another codec, on one scene.

    Attributes
    ----------
    label : for tables
    case : None for another codec
    channels : N of the network; 0 for another codec
    pixels, bytes : rows x columns of the scene; size of its file
    encode, decode : times of every run
    encode_stages, decode_stages : median seconds by stage, summed over threads; empty for another codec
    encode_cpu, decode_cpu : CPU seconds likewise
    encode_pair, decode_pair : with the other codec as the baseline; None for itself, or without one
    """

    label: str
    case: Case | None
    channels: int
    pixels: int
    bytes: int
    encode: Seconds
    decode: Seconds
    encode_stages: Mapping[str, float]
    decode_stages: Mapping[str, float]
    encode_cpu: Mapping[str, float]
    decode_cpu: Mapping[str, float]
    encode_pair: Pair | None = None
    decode_pair: Pair | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        found: dict[str, Any] = {
            "label": self.label,
            "case": self.case and dict(vars(self.case)),
            "channels": self.channels,
            "pixels": self.pixels,
            "bytes": self.bytes,
        }
        for verb in ("encode", "decode"):
            seconds, pair = getattr(self, verb), getattr(self, f"{verb}_pair")
            rates = dict(zip(("median", "min", "max"), (round(r, 5) for r in seconds.rates(self.pixels)), strict=True))
            found[verb] = {"seconds": seconds.to_dict(), "mpx_s": rates, "stages": getattr(self, f"{verb}_stages")}
            found[verb]["cpu_stages"] = getattr(self, f"{verb}_cpu")
            found[verb]["cpu_share_beside_network"] = beside_network(getattr(self, f"{verb}_cpu"))
            found[verb]["speedup_over_baseline"] = pair and round(pair.speedup, 4)
        return found


def measure_codec(
    scene: Path,
    warm_up: Path,
    cases: Sequence[Case],
    *,
    quality: int = 50,
    rounds: int = 3,
    against: str | None = "openjpeg",
    tick: Tick = lambda: None,
) -> list[CodecSpeed]:
    """Measure whole files. The cases of one model and device, and the other codec, take turns.

    Parameters
    ----------
    scene : raster to compress and restore
    warm_up : a small raster that every case codes first, not timed
    cases : settings to compare
    quality : of this codec; the other one aims at the same size
    against : the other codec, "openjpeg", or None
    tick : called after every run, warm-ups included: rounds + 1 times for every result

    Returns
    -------
    Per model and device, the other codec (if any) and then the cases.

    Raises
    ------
    UsageError
        Another codec that is not known, or that this GDAL does not have.
    """
    if against not in (None, *_OTHERS):
        raise UsageError(f"no codec {against!r} to compare with; there are {', '.join(_OTHERS)}")
    found = []
    for (model, device), group in _groups(cases).items():
        engine = load_engine(model, device)
        tasks: list[Callable[[Path], Run]] = [partial(_run_case, engine, case, quality=quality) for case in group]
        if against is not None:
            share = tasks[0](warm_up).bytes / _raw_bytes(warm_up)
            threads = max(case.threads for case in group)
            tasks.insert(0, partial(_OTHERS[against], threads=threads, share=share))
        for task in tasks:
            task(warm_up)
            tick()
        runs = take_turns([partial(task, scene) for task in tasks], rounds, tick)
        found += _paired(group, runs, _pixels(scene), engine.config.channels, against)
    return found


def _groups(cases: Sequence[Case]) -> dict[tuple[str, str], list[Case]]:
    """Cases by model and device."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.model, case.device), []).append(case)
    return groups


def _paired(
    group: Sequence[Case], runs: Sequence[Sequence[Run]], pixels: int, channels: int, against: str | None
) -> list[CodecSpeed]:
    if against is None:
        return [_speed(case.label, case, channels, pixels, found) for case, found in zip(group, runs, strict=True)]
    other = _speed(against, None, 0, pixels, runs[0])
    ours = [_speed(case.label, case, channels, pixels, found) for case, found in zip(group, runs[1:], strict=True)]
    pairs = [
        replace(s, encode_pair=Pair(other.encode, s.encode), decode_pair=Pair(other.decode, s.decode)) for s in ours
    ]
    return [other, *pairs]


def _speed(label: str, case: Case | None, channels: int, pixels: int, runs: Sequence[Run]) -> CodecSpeed:
    return CodecSpeed(
        label,
        case,
        channels,
        pixels,
        runs[0].bytes,
        Seconds(tuple(run.encode for run in runs)),
        Seconds(tuple(run.decode for run in runs)),
        _median_stages([run.encode_stages for run in runs]),
        _median_stages([run.decode_stages for run in runs]),
        _median_stages([run.encode_cpu for run in runs]),
        _median_stages([run.decode_cpu for run in runs]),
    )


def _median_stages(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {stage: round(statistics.median(run.get(stage, 0.0) for run in runs), 4) for stage in runs[0]}


def beside_network(cpu: Mapping[str, float]) -> float | None:
    """Share of the CPU seconds that are not the network's: exact parameters, rANS, tiles, I/O. None without any."""
    total = sum(cpu.values())
    return round(1 - cpu.get("network", 0.0) / total, 4) if total else None


# --- one run ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def configured(engine: Engine, case: Case) -> Iterator[None]:
    """Let `engine`, which the whole process shares, use the threads and batch of a case for a while."""
    before = engine.threads, engine.batch
    engine.threads, engine.batch = case.threads, case.batch
    try:
        yield
    finally:
        engine.threads, engine.batch = before


def _run_case(engine: Engine, case: Case, scene: Path, *, quality: int) -> Run:
    packed, restored = scene.with_name("speed.ltchm"), scene.with_name("speed.tif")
    keywords: dict[str, Any] = {"device": case.device, "workers": min(2, case.threads), "overwrite": True}
    with configured(engine, case):
        there, encode = timed(lambda: compress_raster(scene, packed, quality=quality, model=case.model, **keywords))
        back, decode = timed(lambda: decompress_raster(packed, restored, **keywords))
    return Run(encode, decode, there.stages, back.stages, there.cpu, back.cpu, there.bytes)


def _run_openjpeg(scene: Path, *, threads: int, share: float) -> Run:
    """JPEG 2000 by GDAL's OpenJPEG driver (9/7), at `share` of the raw size."""
    import rasterio
    import rasterio.shutil

    packed, restored = scene.with_name("speed.jp2"), scene.with_name("speed_jp2.tif")
    with rasterio.Env(GDAL_NUM_THREADS=str(threads)) as environment:
        if "JP2OpenJPEG" not in environment.drivers():
            raise UsageError("this GDAL has no OpenJPEG driver; leave the comparison out with --against none")
        options = {"driver": "JP2OpenJPEG", "QUALITY": f"{100 * share:.4f}", "REVERSIBLE": "NO"}
        _, encode = timed(lambda: rasterio.shutil.copy(scene, packed, **options))
        _, decode = timed(lambda: rasterio.shutil.copy(packed, restored, driver="GTiff", TILED="YES"))
    return Run(encode, decode, {}, {}, {}, {}, os.path.getsize(packed))


_OTHERS = {"openjpeg": _run_openjpeg}


def _pixels(scene: Path) -> int:
    import rasterio

    with rasterio.open(scene) as found:
        return int(found.height * found.width)


def _raw_bytes(scene: Path) -> int:
    import numpy as np
    import rasterio

    with rasterio.open(scene) as found:
        return int(found.height * found.width * found.count * np.dtype(found.dtypes[0]).itemsize)


# --- tables ----------------------------------------------------------------------------------------------------------


def codec_markdown(found: Sequence[CodecSpeed], verb: str) -> str:
    """Mpx/s of `verb` ("encode" or "decode"): on the wall, per CPU second, and of a thread in each stage, its share.

    The last column is the share of the CPU time that is not the network's.
    """
    others = {speed.label for speed in found if speed.case is None}
    header = [f"{verb}, Mpx/s", "median (min-max)", "per CPU s", f"times {next(iter(others), 'other')}", *STAGES]
    header.append("CPU beside network")
    rows = []
    for speed in found:
        seconds = getattr(speed, verb)
        median, low, high = seconds.rates(speed.pixels)
        pair, stages = getattr(speed, f"{verb}_pair"), getattr(speed, f"{verb}_stages")
        total = sum(stages.values())
        cells = [_stage(speed.pixels, sum(stages.get(name, 0.0) for name in names), total) for names in STAGES.values()]
        ratio = "-" if pair is None else f"{pair.speedup:.3g}"
        whole = [f"{median:.3g} ({low:.3g}-{high:.3g})", f"{speed.pixels / seconds.cpu / 1e6:.3g}"]
        share = beside_network(getattr(speed, f"{verb}_cpu"))
        rows.append([speed.label, *whole, ratio, *cells, "-" if share is None else f"{share:.0%}"])
    return markdown_table(header, rows)


def _stage(pixels: int, seconds: float, total: float) -> str:
    return f"{pixels / seconds / 1e6:.3g} ({seconds / total:.0%})" if seconds else "-"
