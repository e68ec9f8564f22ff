"""`ltchm bench checkpoint`: estimated rate and distortion of a checkpoint of any architecture."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from test_training import make_trainer

from ltchm_geo.benchmark.results import RdResult
from ltchm_geo.cli.bench_checkpoint import checkpoint
from ltchm_geo.errors import DestinationExistsError, UsageError
from ltchm_geo.metrics import psnr
from ltchm_geo.training.evaluate import evaluate_checkpoint
from ltchm_geo.training.loop import average_model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    trainer = make_trainer(architecture="cheng2020-attn", options={"channels": 16, "parameter_width": 16})
    trainer.train_step()
    path = tmp_path_factory.mktemp("run") / "one.safetensors"
    trainer.save(path)
    return path


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def test_points_are_what_the_network_says(path):
    picture = image(130, 270)
    low, high = evaluate_checkpoint(path, {"a": picture}, [0, 100], tile=128, batch=1)
    assert [(point.image, point.setting) for point in (low, high)] == [("a", "0"), ("a", "100")]
    model, kept = average_model(path), picture[:, :128, :256]
    crops = torch.from_numpy(np.stack([kept[:, :, :128], kept[:, :, 128:]])).float() / 255
    with torch.no_grad():
        estimate = model(crops, torch.tensor([6.25, 6.25]))
    bits = float((estimate.bits_y + estimate.bits_z).sum())
    assert high.bpp == pytest.approx(bits / (128 * 256), rel=1e-4)
    assert high.bytes == math.ceil(high.bpp * 128 * 256 / 8)
    restored = (estimate.x_hat.clamp(0, 1) * 255).round().byte().numpy()
    assert high.psnr == pytest.approx(psnr(kept, np.concatenate(list(restored), axis=2), 255), abs=0.01)
    assert math.isnan(high.encode_s)
    assert math.isnan(high.decode_s)


def test_batches_do_not_change_the_result(path):
    pictures = {"a": image(256, 256)}
    (one,), (four,) = (evaluate_checkpoint(path, pictures, [48], tile=128, batch=batch) for batch in (1, 4))
    assert one.bpp == pytest.approx(four.bpp, rel=1e-3)
    assert one.psnr == pytest.approx(four.psnr, abs=1e-2)


@pytest.mark.parametrize(
    ("wrong", "levels", "message"),
    [
        (image(128, 128).astype(np.uint16), [0], "8-bit RGB"),
        (image(128, 128)[:1], [0], "8-bit RGB"),
        (image(100, 128), [0], "at least 128"),
        (image(128, 128), [113], "no quality level 113"),
    ],
)
def test_what_cannot_be_measured_is_refused(path, wrong, levels, message):
    with pytest.raises(UsageError, match=message):
        evaluate_checkpoint(path, {"a": wrong}, levels, tile=128)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_command_keeps_a_result_that_reports_can_read(path, tmp_path):
    (tmp_path / "pictures").mkdir()
    profile = {"driver": "PNG", "height": 256, "width": 256, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "pictures" / "a.png", "w", **profile) as file:
        file.write(image(256, 256))
    arguments = [str(path), "--dataset", str(tmp_path / "pictures"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    found = CliRunner().invoke(checkpoint, [*arguments, "--level", "16", "--level", "64", "--json"])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout.splitlines()[-1])["rows"]
    assert [row["level"] for row in rows] == ["16", "64"]
    result = RdResult.load(tmp_path / "out" / "pictures" / "cheng2020-attn.json")
    assert [(point.setting, point.bpp) for point in result.points] == [(row["level"], row["bpp"]) for row in rows]
    assert result.about["checkpoint"]["recipe"]["architecture"] == "cheng2020-attn"
    assert result.about["checkpoint"]["step"] == 1
    again = CliRunner().invoke(checkpoint, arguments)
    assert isinstance(again.exception, DestinationExistsError)
