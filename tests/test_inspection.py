from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from decodable import DECODABLE, write_decodable
from scenes import META, write

from ltchm_geo.cli.verify import verify as command
from ltchm_geo.errors import CorruptContainerError, NotAContainerError, WeightsNotFoundError
from ltchm_geo.inspection import SceneInfo, info, verify
from ltchm_geo.types import TileIndex


@pytest.mark.parametrize(("name", "form"), [("scene.ltchm", "file"), ("scene.zarr", "folder")])
def test_info(name: str, form: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    found = info(path)
    assert (found.path, found.form, found.meta) == (path, form, META)
    size = sum(f.stat().st_size for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file())
    assert found.bytes == size
    assert found.raw_bytes == 150 * 220 * 5
    assert found.ratio == found.raw_bytes / size
    assert found.bpp == 8 * size / (150 * 220)
    assert found.tiles == 3 * 4 * 4
    as_json = found.to_dict()
    assert json.loads(json.dumps(as_json, allow_nan=False)) == as_json


@pytest.mark.parametrize("quality", range(1, 101))
def test_quality_is_the_one_asked_for(quality: int, tmp_path: Path) -> None:
    level = round((quality - 1) * 112 / 99)
    assert SceneInfo(tmp_path, "file", replace(META, level=level), {}).quality == quality


def test_what_is_no_scene(tmp_path: Path) -> None:
    (tmp_path / "a.ltchm").write_bytes(b"something else")
    for look in (info, verify):
        with pytest.raises(NotAContainerError, match=r"a\.ltchm"):
            look(tmp_path / "a.ltchm")
        with pytest.raises(NotAContainerError, match="no such file"):
            look(tmp_path / "missing.ltchm")


def test_a_cut_file_cannot_be_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ltchm")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptContainerError):
        verify(path)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_scene(deep: bool, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(
        write_decodable(tmp_path / "a.ltchm"), deep=deep, progress=lambda done, total: seen.append((done, total))
    )
    assert report.ok
    assert (report.problems, report.tiles, report.deep) == ((), 48, deep)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert len({total for _, total in seen}) == 1


def test_only_a_deep_look_finds_what_was_stored_wrong(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm", broken=("g0", TileIndex(2, 3)))
    assert verify(path).ok
    report = verify(path, deep=True)
    assert not report.ok
    assert [(problem.array, problem.tile) for problem in report.problems] == [("g0", (2, 3))]
    assert "CONSTANT" in report.problems[0].message


@pytest.mark.parametrize("array", ["g0", "alpha"])
def test_damage_is_told_once(array: str, tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.zarr")
    shard = path / DECODABLE.shard_key(array, TileIndex(0, 0))
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(data)
    for deep in (False, True):
        report = verify(path, deep=deep)
        assert [(problem.array, problem.tile) for problem in report.problems] == [(array, (0, 0))]
    assert json.loads(json.dumps(report.to_dict()))["problems"][0]["tile"] == [0, 0]


def test_a_missing_shard_is_damage(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.zarr")
    (path / DECODABLE.shard_key("g1", TileIndex(1, 1))).unlink()
    for deep in (False, True):
        (problem,) = verify(path, deep=deep).problems  # not one for each tile
        assert (problem.key, problem.tile, problem.lost) == ("0/g1/c/0/1/1", None, 2)
    result = CliRunner().invoke(command, [str(path)])
    assert (result.exit_code, "damaged, 2 of 48 tiles" in result.output) == (1, True)


def test_a_deep_look_needs_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsNotFoundError, match="abab"):
        verify(write(tmp_path / "a.ltchm"), deep=True)
