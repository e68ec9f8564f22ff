from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scenes import META, write

import ltchm_geo
from ltchm_geo._json import jsonable
from ltchm_geo.cli import options, text
from ltchm_geo.cli.main import Commands, cli, main
from ltchm_geo.errors import CorruptTileError, DestinationExistsError, UnsupportedRasterError

DATA = Path(__file__).parent / "data"
HEAVY = ("torch", "numba", "rasterio", "zarr", "dask", "xarray", "scipy", "rich")
COMMANDS = (
    *("compress", "archive", "estimate", "decompress", "serve", "preview", "footprint"),
    *("info", "verify", "compare", "train"),
)

Fake = Callable[[str, Callable[..., Any]], None]


class Result:
    """Stands for what the library's functions return."""

    def __init__(self, **values: Any):
        self.__dict__ = values

    def to_dict(self) -> dict[str, Any]:
        return self.__dict__


COMPRESSED = {
    "path": Path("b.ltchm"),
    "bytes": 1000,
    "source_bytes": 40_000,
    "raw_bytes": 48_000,
    "bpp": 0.5,
    "ratio": 48.0,
    "seconds": 2.0,
    "level": 56,
    "tiles": {"latent": 3, "empty": 0, "lossless": 1},
    "stages": {"read": 0.5},
    "psnr": None,
    "max_error": None,
    "alpha": None,
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Replace a function of the library by another, without importing the real one."""
    return lambda name, function: monkeypatch.setitem(ltchm_geo.__dict__, name, function)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write(tmp_path / "scene.ltchm")


@pytest.fixture
def damaged(scene: Path) -> Path:
    data = bytearray(scene.read_bytes())
    data[data.index(b"g0 1 2")] ^= 1
    scene.write_bytes(data)
    return scene


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return function


def json_lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "train"])
def test_help_fits_and_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert f"ltchm {command} " in shown.split("Examples:")[1]


def test_help_lists_the_commands_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out.split("Commands:")[1]
    assert re.findall(r"^  (\w+) ", shown, re.MULTILINE)[: len(COMMANDS)] == list(COMMANDS)


def test_without_arguments_help_is_shown_and_it_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ltchm {ltchm_geo.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["compress", "--help"], ["info", "SCENE"], ["verify", "SCENE"]])
def test_nothing_heavy_is_imported(arguments: list[str], scene: Path) -> None:
    arguments = [str(scene) if argument == "SCENE" else argument for argument in arguments]
    code = (
        "import sys; from ltchm_geo.cli.main import main; code = main(sys.argv[1:]);"
        f"print('loaded:', *[name for name in {HEAVY} if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: 0"


def test_python_m(scene: Path) -> None:
    command = [sys.executable, "-m", "ltchm_geo", "info", str(scene)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "220 x 150 pixels, 5 bands, uint8" in done.stdout


# --- info, verify, compare -------------------------------------------------------------------------------------------


def test_info(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(scene)]) == 0
    shown = capsys.readouterr().out
    for expected in ("51 of 100 (level 56)", "tiny (SHA-256 abab", "4 x 3 of 64 pixels", "mask band, alpha band", "B3"):
        assert expected in shown


def test_info_of_odd_bands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nodata have all their digits, and what a file says cannot command the terminal."""
    esc = "\x1b]0;owned\x07\x9b2J\u202e"
    odd = [
        replace(META.bands[0], description=f"red{esc}\nband", nodata=-9999999, unit=f"m{esc}"),
        replace(META.bands[1], nodata=-3.4028234663852886e38),
        replace(META.bands[2], nodata=0.1),
    ]
    meta = replace(META, bands=(*odd, *META.bands[3:]), software=f"maker{esc}", source={"name": f"a{esc}.tif"})
    assert main(["info", str(write(tmp_path / "a.ltchm", meta=meta))]) == 0
    shown = capsys.readouterr().out
    assert all(character.isprintable() for character in shown.replace("\n", ""))
    for expected in ("red?]0;owned??2J? band", "maker?]0;owned", " -9999999 ", " -3.4028234663852886e+38 ", " 0.1 "):
        assert expected in shown


def test_info_json(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(scene), "--json"]) == 0
    (found,) = json_lines(capsys.readouterr().out)
    assert (found["event"], found["form"], found["bytes"]) == ("result", "file", scene.stat().st_size)
    assert (found["shape"], found["alpha"], found["tiles"]) == ([150, 220], 3, 48)
    assert sum(size for part, size in found["sizes"].items() if part != "total") == found["bytes"]


def test_verify_a_sound_scene(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(scene)]) == 0
    assert "sound, 48 tiles checked" in capsys.readouterr().out


def test_verify_names_damaged_tiles(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(damaged)]) == 1
    shown = capsys.readouterr().out
    assert "damaged, 1 of 48 tiles" in shown
    assert [line.split()[:4] for line in shown.splitlines()[2:]] == [["g0", "1", "2", "checksum"]]


def test_verify_json(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(damaged), "--json"]) == 1
    *progress, found = json_lines(capsys.readouterr().out)
    assert {line["event"] for line in progress} == {"progress"}
    assert progress[-1]["done"] == progress[-1]["total"]
    assert found["ok"] is False
    assert [(p["array"], p["tile"]) for p in found["problems"]] == [("g0", [1, 2])]


def test_verify_quietly(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(damaged), "--quiet"]) == 1
    assert capsys.readouterr() == ("", "")


def test_compare_json(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(DATA / "drone_rgba.tif")
    assert main(["compare", path, path, "--json", "--fail-on-metadata"]) == 0
    found = json_lines(capsys.readouterr().out)[-1]
    assert (found["event"], found["same_pixels"], found["psnr"]) == ("result", True, "Infinity")


def test_compare_of_different_sizes_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(DATA / "drone_rgba.tif"), str(DATA / "tokyo_l8_u16.tif")]) == 1
    assert "EPSG:32750" in capsys.readouterr().out


def test_compare_fails_on_metadata_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import rasterio

    ours, theirs = DATA / "tokyo_l8_u16.tif", tmp_path / "b.tif"
    theirs.write_bytes(ours.read_bytes())
    with rasterio.open(theirs, "r+") as dataset:
        dataset.update_tags(WHO="me")
    assert main(["compare", str(ours), str(theirs)]) == 0
    assert "tag WHO" in capsys.readouterr().out
    assert main(["compare", str(ours), str(theirs), "--fail-on-metadata", "--quiet"]) == 1


# --- compress, decompress --------------------------------------------------------------------------------------------


def test_compress_passes_options_on(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    def compress_raster(src: str, dst: str | None, **keywords: Any) -> Result:
        seen.update(keywords, src=src, dst=dst)
        return Result(**{**COMPRESSED, "psnr": (41.234, float("inf")), "max_error": (7.0, 0.0)})

    fake("compress_raster", compress_raster)
    arguments = "compress a.tif b.ltchm --lambda 1024 --model tag --device cpu --tile-size 128 --measure --workers 3"
    more = "--overwrite --overviews 2,8 --overview-quality 70 --no-preview --resume"
    assert main([*arguments.split(), *more.split()]) == 0
    assert seen.pop("progress") is None  # nobody looks: standard error is no terminal
    assert (
        seen.items()
        >= {
            "src": "a.tif",
            "dst": "b.ltchm",
            "quality": None,
            "lambda_": 1024.0,
            "model": "tag",
            "device": "cpu",
            "tile_size": 128,
            "overwrite": True,
            "measure": True,
            "overviews": (2, 8),
            "overview_quality": 70,
            "preview": False,
            "workers": 3,
            "resume": True,
            "client": None,
        }.items()
    )
    shown = capsys.readouterr().out
    for expected in ("1 kB for 48 kB", "48.0 times smaller, 0.500 bits", "3 latent, 1 lossless", "41.23", "inf"):
        assert expected in shown


@pytest.mark.parametrize(("text", "value"), [("auto", None), ("none", False), ("4", (4,)), ("2, 4,8", (2, 4, 8))])
def test_overviews_to_make(text: str, value: Any, fake: Fake) -> None:
    seen: dict[str, Any] = {}
    fake("compress_raster", lambda *_args, **keywords: seen.update(keywords) or Result(**COMPRESSED))
    assert main(["compress", "a.tif", "--overviews", text]) == 0
    assert (seen["overviews"], seen["preview"]) == (value, None)


@pytest.mark.parametrize("text", ["", "2;4", "two", "-2", "2,,4", "1.5"])
def test_overviews_that_make_no_sense(text: str, fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake("compress_raster", raising(AssertionError("must not be called")))
    assert main(["compress", "a.tif", "--overviews", text]) == 2
    assert "neither auto nor none nor a list" in capsys.readouterr().err


def test_compress_json(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    def compress_raster(*_args: Any, progress: Callable[[int, int], None], **_keywords: Any) -> Result:
        for done in range(1, 101):
            progress(done, 100)
        return Result(**{**COMPRESSED, "psnr": (float("inf"),)})

    fake("compress_raster", compress_raster)
    assert main(["compress", "a.tif", "--json"]) == 0
    *progress, result = json_lines(capsys.readouterr().out)
    assert progress[0] == {"event": "progress", "done": 1, "total": 100}
    assert progress[-1] == {"event": "progress", "done": 100, "total": 100}
    assert len(progress) < 20  # not one for each tile
    assert (result["event"], result["path"], result["psnr"]) == ("result", "b.ltchm", ["Infinity"])


def test_decompress_passes_options_on(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    def decompress_raster(src: str, dst: str | None, **keywords: Any) -> Result:
        seen.update(keywords, src=src, dst=dst)
        return Result(path=Path("b.tif"), bytes=5, seconds=1.0, damaged=(), stages={})

    fake("decompress_raster", decompress_raster)
    assert main(["decompress", "a.ltchm", "--window", "1", "2", "3", "4", "--bands", "4,3,2", "--allow-damaged"]) == 0
    assert seen["level"] == 0
    assert (seen["window"], seen["bands"], seen["allow_damaged"]) == ((1, 2, 3, 4), (4, 3, 2), True)
    assert (seen["dst"], seen["overwrite"], seen["device"], seen["workers"]) == (None, False, "auto", None)
    assert capsys.readouterr().out.startswith("b.tif\n")
    assert main(["decompress", "a.ltchm", "--level", "2", "--bounds", "-10", "20.5", "-9", "21"]) == 0
    assert (seen["level"], seen["window"], seen["bounds"]) == (2, None, (-10.0, 20.5, -9.0, 21.0))
    assert main(["decompress", "a.ltchm", "--co", "COMPRESS=ZSTD", "--co", "ZSTD_LEVEL=19"]) == 0
    assert seen["options"] == {"COMPRESS": "ZSTD", "ZSTD_LEVEL": "19"}


def test_decompress_warns_of_damage(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    tiles = tuple(Result(array="g0", tile=(0, i), message=f"tile {i} is bad") for i in range(8))
    result = {"path": Path("b.tif"), "bytes": 5, "seconds": 1.0, "stages": {}}

    class Damaged(Result):
        def to_dict(self) -> dict[str, Any]:
            return result

    fake("decompress_raster", lambda *_args, **_keywords: Damaged(**result, damaged=tiles))
    assert main(["decompress", "a.ltchm", "--allow-damaged", "--json"]) == 0
    shown = capsys.readouterr()
    assert "ltchm: warning: 8 damaged tiles replaced" in shown.err
    assert [line["event"] for line in json_lines(shown.out)] == ["warning"] * 6 + ["result"]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnsupportedRasterError("a.tif is\npaletted"), 2),
        (DestinationExistsError("b.ltchm exists: use --overwrite"), 2),
        (CorruptTileError("tile (0, 1) is damaged"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_the_library(error: Exception, code: int, fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    message = " ".join(str(error).split())
    fake("compress_raster", raising(error))
    assert main(["compress", "a.tif"]) == code
    assert capsys.readouterr() == ("", f"ltchm: error: {message}\n")
    assert main(["compress", "a.tif", "--json"]) == code
    shown = capsys.readouterr()
    assert json_lines(shown.out)[-1] == {"event": "error", "type": type(error).__name__, "message": message}
    assert shown.err == f"ltchm: error: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'. See: ltchm --help"),
        (["info"], "Missing argument 'SRC'. See: ltchm info --help"),
        (["bench"], "Missing command. See: ltchm bench --help"),
        (["compress", "a.tif", "--quality", "0"], "0 is not in the range 1<=x<=100"),
        (["compress", "a.tif", "--quality", "3", "--lambda", "200"], "give one of them"),
        (["decompress", "a.ltchm", "--bands", "0,1"], "the first band is 1"),
        (["decompress", "a.ltchm", "--co", "COMPRESS"], "'COMPRESS' is not NAME=VALUE"),
        (["decompress", "a.ltchm", "--bands", "1,,2"], "'1,,2' is not a list"),
        (["decompress", "a.ltchm", "--window", "0", "0", "0", "9"], "0 is not in the range x>=1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("ltchm: error: ")
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert main([*arguments, "--json"]) == 2
    assert json_lines(capsys.readouterr().out)[-1]["type"] == "UsageError"


def test_bugs_are_one_line_unless_debugging(
    fake: Fake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("info", raising(ZeroDivisionError("oh\nno")))
    monkeypatch.delenv("LTCHM_DEBUG", raising=False)
    assert main(["info", "a.ltchm"]) == 70
    shown = capsys.readouterr().err
    assert shown.startswith("ltchm: error: ZeroDivisionError: oh no (a bug?")
    assert shown.count("\n") == 1
    monkeypatch.setenv("LTCHM_DEBUG", "1")
    assert main(["info", "a.ltchm"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_interruption(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake("compress_raster", raising(KeyboardInterrupt()))
    assert main(["compress", "a.tif", "--json"]) == 130
    shown = capsys.readouterr()
    assert shown.err.strip() == "ltchm: error: interrupted"
    assert json_lines(shown.out)[-1]["type"] == "Interrupted"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no polite kill")
def test_termination_cleans_up(fake: Fake, tmp_path: Path) -> None:
    part = tmp_path / "b.ltchm.part"

    @contextmanager
    def written() -> Iterator[None]:
        part.touch()
        try:
            yield
        finally:
            part.unlink()

    def compress_raster(*_args: Any, **_keywords: Any) -> None:
        with written():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    fake("compress_raster", compress_raster)
    with pytest.raises(SystemExit) as stopped:
        main(["compress", "a.tif"])
    assert stopped.value.code == 143
    assert not part.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_hosts_show_errors_alike(fake: Fake) -> None:
    """`rio ltchm` runs the group itself, not `main`."""
    fake("info", raising(CorruptTileError("tile (0, 1) is damaged")))
    done = CliRunner().invoke(cli, ["info", "a.ltchm"])
    assert done.exit_code == 1
    assert done.stderr == "ltchm: error: tile (0, 1) is damaged\n"


def test_unknown_commands_are_none() -> None:
    group = Commands("ltchm")
    assert group.get_command(__import__("click").Context(group), "nothing") is None


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "unknown"),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (99_949, "99.9 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_234_000_000, "1.23 GB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_sizes(count: int | None, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.004, "0.00 s"), (12.34, "12.3 s"), (99.5, "1 min 40 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_tables_align_and_end() -> None:
    assert text.table(("name", "n"), [("a", "10"), ("long", "2")]).splitlines() == [
        "  name   n",
        "  a     10",
        "  long   2",
    ]
    assert text.table(("n",), [(str(i),) for i in range(100)]).endswith("and 60 more; --json lists them all")


@pytest.mark.parametrize(
    ("wkt", "name"),
    [
        (None, None),
        ('PROJCRS["WGS 84 / UTM zone 33N",BASEGEOGCRS["WGS 84",ID["EPSG",4326]],ID["EPSG",32633]]', "EPSG:32633, "),
        ('LOCAL_CS["site ""A"""]', 'site ""A""'),
        ("", "unnamed"),
    ],
)
def test_crs_names(wkt: str | None, name: str | None) -> None:
    found = text.crs_name(wkt)
    assert found is None if name is None else found is not None and found.startswith(name)


def test_jsonable_makes_strict_json() -> None:
    found = jsonable({"a": [float("nan"), -float("inf"), 1.5], "p": Path("x"), "t": (1, None)})
    assert json.loads(json.dumps(found, allow_nan=False)) == {"a": ["NaN", "-Infinity", 1.5], "p": "x", "t": [1, None]}


def test_bands_and_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with options.Reporter(as_json=False).progress("working") as progress:
        assert progress is not None
        progress(1, 2)
    assert capsys.readouterr().out == ""  # a bar never mixes with results
