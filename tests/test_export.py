"""`ltchm export`: from a checkpoint to a weights file and its line in the manifest."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from test_training import make_trainer
from test_training_data import add_image

from ltchm_geo import weights
from ltchm_geo.cli.export import export
from ltchm_geo.errors import DestinationError, InvalidWeightsError, UsageError, WeightsError
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.training import data
from ltchm_geo.training import export as training_export
from ltchm_geo.training.blend import blend
from ltchm_geo.training.dequantise import float_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of one step and a pack of data, which lacks one of the recipe's sources."""
    folder = tmp_path_factory.mktemp("run")
    trainer = make_trainer()
    trainer.recipe = replace(trainer.recipe, weights={"source": 0.5, "elsewhere": 0.4})
    trainer.train_step()
    trainer.save(folder / "final.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (260, 270, 3), dtype=np.uint8)
    with tarfile.open(folder / "pack.tar", "w") as tar:
        add_image(tar, "source/image.png", pixels, "PNG")
    return folder


def exported(run: Path, out: Path, tag: str, *options: str) -> Result:
    arguments = [str(run / "final.safetensors"), str(run / "pack.tar"), "--crops", "1", "--out", str(out)]
    return CliRunner().invoke(export, [*arguments, "--tag", tag, *options])


def test_new_weights_become_the_default_and_archive_the_previews_before_them(run, tmp_path, monkeypatch):
    out = tmp_path / "new" / "weights"
    provenance = ("--trained-on", "noise", "--recipe", "none", "--commit", "0000000", "--notes", "A test.")
    for tag, status in (("one", "stable"), ("two", "preview"), ("three", "preview")):
        result = exported(run, out, tag, "--status", status, *provenance)
        assert result.exit_code == 0, result.output
        assert "level  float bpp  integer bpp" in result.output
    assert sorted(p.name for p in out.iterdir()) == [
        "manifest.json",
        "one.safetensors",
        "three.safetensors",
        "two.safetensors",
    ]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["default"] == "three"
    statuses = {entry["tag"]: entry["status"] for entry in manifest["entries"]}
    assert statuses == {"one": "stable", "two": "archived", "three": "preview"}
    monkeypatch.setenv("LTCHM_WEIGHTS", str(out))
    for tag in statuses:  # archived ones still open
        assert weights.load(tag).entry.tag == tag
    entry = weights.find()[0]
    assert (entry.tag, entry.data) == ("three", "noise; calibrated on pack.tar")
    assert (entry.recipe, entry.commit, entry.notes) == ("none", "0000000", "A test.")


def test_what_is_not_said_is_left_out(run, tmp_path):
    assert exported(run, tmp_path, "plain").exit_code == 0
    (entry,) = json.loads((tmp_path / "manifest.json").read_text())["entries"]
    assert (entry["data"], entry["recipe"], entry["notes"]) == ("calibrated on pack.tar", "step 1", "")
    assert exported(run, tmp_path, "trial", "--no-default").exit_code == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["default"] == "plain"
    assert [entry["status"] for entry in manifest["entries"]] == ["preview", "preview"]


def test_places_that_cannot_be_written_are_told_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_pools", None)  # what takes long is not begun
    (tmp_path / "file").touch()
    result = exported(run, tmp_path / "file" / "weights", "x")
    assert isinstance(result.exception, DestinationError)
    assert result.exception.exit_code == 1


def test_released_weights_are_never_replaced(run, tmp_path, monkeypatch):
    assert exported(run, tmp_path, "mine-v1").exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(data, "load_pools", None)  # it is told before the work
    result = exported(run, tmp_path, "mine-v1", "--crops", "2")
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).endswith("has weights mine-v1 already, which scenes may need: choose another tag")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "manifest.json").unlink()  # and still there is the file
    assert "choose another tag" in str(exported(run, tmp_path, "mine-v1").exception)


@pytest.mark.parametrize("tag", ["my weights", "", "../x", ".hidden"])
def test_malformed_tags_are_told_before_the_work(run, tmp_path, monkeypatch, tag):
    monkeypatch.setattr(data, "load_pools", None)
    result = exported(run, tmp_path, tag)
    assert isinstance(result.exception, UsageError)
    assert "is no tag: use letters" in str(result.exception)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "default": null, "entries": []}'])
def test_damaged_manifests_are_told_before_the_work(run, tmp_path, monkeypatch, text):
    monkeypatch.setattr(data, "load_pools", None)
    (tmp_path / "manifest.json").write_text(text)
    result = exported(run, tmp_path, "x")
    assert isinstance(result.exception, WeightsError)
    assert "manifest.json cannot be used" in str(result.exception)


def test_integers_that_no_reader_would_take_are_not_written(run, tmp_path, monkeypatch):
    original = training_export.integerise

    def integerise(*args):
        tensors, description = original(*args)
        tensors["mlp.0.shift"][:] = 99
        return tensors, description

    monkeypatch.setattr(training_export, "integerise", integerise)
    result = exported(run, tmp_path, "x")
    assert isinstance(result.exception, InvalidWeightsError)
    assert not list(tmp_path.iterdir())


def test_at_least_one_crop_is_needed(run, tmp_path):
    result = exported(run, tmp_path, "x", "--crops", "0")
    assert result.exit_code == 2
    assert "is not in the range" in result.output


def test_only_checkpoints_can_be_exported(run, tmp_path):
    result = CliRunner().invoke(export, [*[str(run / "pack.tar")] * 2, "--tag", "x", "--out", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "cannot read the checkpoint" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_weights_between_two(run, tmp_path, monkeypatch):
    """All of what training started from is that; half of it is half way."""
    out = tmp_path / "weights"
    monkeypatch.setenv("LTCHM_WEIGHTS", str(out))
    assert exported(run, out, "begun").exit_code == 0
    trainer = make_trainer()
    trainer.start_from(float_model(weights.load("begun")))
    for _ in range(2):
        trainer.train_step()
    (tmp_path / "run").mkdir()
    trainer.save(tmp_path / "run" / "final.safetensors")
    (tmp_path / "run" / "pack.tar").write_bytes((run / "pack.tar").read_bytes())
    for tag, share in (("trained", "0"), ("half", "0.5"), ("again", "1")):
        result = exported(tmp_path / "run", out, tag, "--blend", "begun", share)
        assert result.exit_code == 0, result.output
    tags = ("begun", "trained", "half", "again")
    first = {tag: next(float_model(weights.load(tag)).g_a.parameters()) for tag in tags}
    assert torch.equal(first["again"], first["begun"])
    assert not torch.equal(first["trained"], first["begun"])
    torch.testing.assert_close(first["half"], (first["trained"] + first["begun"]) / 2, atol=1e-3, rtol=0)


def test_networks_of_different_sizes_are_not_blended():
    with pytest.raises(UsageError, match="cannot be blended"):
        blend(LTCHM(ModelConfig(channels=32)), LTCHM(ModelConfig(channels=64)), 0.5)
