"""Which scenes an archive is made of, and where their results go."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from ltchm_geo.archive.sources import _below, arrange, find_sources
from ltchm_geo.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = "a.tif b.TIF notes.txt sub/c.jp2 sub/c.jp2.aux.xml sub/deep/d.tif .hidden/e.tif .f.tif old.zarr/0/g.tif"
    for name in [*names.split(), "out/h.tif", "sub/k.ltchm"]:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "in"


def places(sources: list[str | Path], **options: object) -> list[str]:
    return [found.place.as_posix() for found in find_sources(sources, **options)]  # type: ignore[arg-type]


def test_folder(folder: Path) -> None:
    assert places([folder]) == ["a.tif", "b.TIF", "out/h.tif", "sub/c.jp2", "sub/deep/d.tif"]
    assert places([folder], skip=folder / "out") == ["a.tif", "b.TIF", "sub/c.jp2", "sub/deep/d.tif"]
    assert [found.name for found in find_sources([folder / "sub" / "deep"])] == [str(folder / "sub/deep/d.tif")]


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        (["*.txt"], [], ["notes.txt"]),
        (["sub/*"], ["*.xml"], ["sub/c.jp2", "sub/deep/d.tif"]),
        ([], ["sub/*", "a.*", "out/*"], ["b.TIF"]),
        (["d.tif"], [], ["sub/deep/d.tif"]),
    ],
)
def test_patterns(folder: Path, include: list[str], exclude: list[str], found: list[str]) -> None:
    assert places([folder], include=include, exclude=exclude) == found


def test_each_source_once(folder: Path) -> None:
    assert places([folder / "a.tif", folder, folder / "sub"]) == [
        *("a.tif", "b.TIF", "out/h.tif", "sub/c.jp2", "sub/deep/d.tif")
    ]


def test_list(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"# scenes\nin/a.tif\n\n  {folder}/b.TIF  \ns3://bucket/2023/x.tif\n/vsizip/q.zip/y.tif\ngone.tif\n"
    )
    found = find_sources([f"@{listed}"])
    absolute = folder.as_posix().lstrip("/")
    assert [f.place.as_posix() for f in found] == [
        *("in/a.tif", f"{absolute}/b.TIF", "bucket/2023/x.tif", "vsizip/q.zip/y.tif", "gone.tif")
    ]
    assert [f.name for f in found][:3] == [str(folder / "a.tif"), str(folder / "b.TIF"), "s3://bucket/2023/x.tif"]
    assert places([f"@{listed}", "s3://other/z.tif"])[-1] == "z.tif"
    with pytest.raises(UsageError, match=r"list .* cannot be read"):
        find_sources(["@nowhere.txt"])


@pytest.mark.parametrize("name", ["..", "/", "s3://", "s3://bucket/..", "./"])
def test_lists_with_names_of_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(name)
    if name == "s3://bucket/..":
        assert places([f"@{tmp_path / 'list.txt'}"]) == ["bucket"]
        with pytest.raises(UsageError, match="names no raster"):
            find_sources([f"@{tmp_path / 'list.txt'}"], base="s3://bucket")
        return
    with pytest.raises(UsageError, match="names no raster: give files, folders, or @list"):
        arrange([f"@{tmp_path / 'list.txt'}"])


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_names_outside_utf8(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xce\xc4.tif")).touch()
    with pytest.raises(UsageError, match=r"xce.xc4\.tif' is a name outside UTF-8: rename it or --exclude it"):
        find_sources([folder])
    assert len(find_sources([folder], exclude=["?.tif", "\udcce*"])) == 2


def test_folders_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by permissions: the tests may run as root, who reads everything."""
    original = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match=r"folder .*deep cannot be read \(Permission denied\): change .* --exclude it"):
        find_sources([folder])
    for pattern in ("deep", "sub/deep", "sub"):
        assert "sub/deep/d.tif" not in places([folder], exclude=[pattern])
    assert "sub/c.jp2" in places([folder], exclude=["deep"])


def test_base(folder: Path) -> None:
    assert places([folder / "sub" / "c.jp2"], base=folder) == ["sub/c.jp2"]
    assert places([folder / "sub"], base=str(folder.parent) + "/") == ["in/sub/c.jp2", "in/sub/deep/d.tif"]
    assert places(["s3://b/x/y.tif"], base="s3://b") == ["x/y.tif"]
    for base in (folder / "sub", folder / "a.tif", str(folder)[:-1]):
        with pytest.raises(UsageError, match="not below the base"):
            find_sources([folder / "a.tif"], base=base)


def test_base_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltchm_geo.archive.sources.Path", PureWindowsPath)
    assert _below(r"C:\Data\2023\a.tif", r"c:\data").as_posix() == "2023/a.tif"
    with pytest.raises(UsageError, match="not below the base"):
        _below(r"C:\Data2\a.tif", r"C:\Data")


def test_results(folder: Path) -> None:
    results = arrange([folder / "sub"])
    assert results == {"c.ltchm": str(folder / "sub/c.jp2"), "deep/d.ltchm": str(folder / "sub/deep/d.tif")}
    assert list(arrange([folder / "sub"], folders=True)) == ["c.zarr", "deep/d.zarr"]
    assert list(arrange([folder / "sub"], keep_suffix=True)) == ["c.jp2.ltchm", "deep/d.tif.ltchm"]


@pytest.mark.parametrize("name", ["a.jp2", "A.jp2", "A.tif"])
def test_collisions(folder: Path, name: str) -> None:
    if (folder / name).exists():
        pytest.skip("this file system does not tell upper and lower case apart")
    (folder / name).touch()
    with pytest.raises(UsageError, match=r"would both become [aA]\.ltchm: use --base"):
        arrange([folder])
    if name == "a.jp2":
        assert len(arrange([folder], keep_suffix=True)) == 6


def test_nothing(folder: Path) -> None:
    with pytest.raises(UsageError, match="no rasters"):
        arrange([folder], include=["*.xyz"])
    with pytest.raises(UsageError, match="does not exist"):
        arrange([folder / "nowhere"])
