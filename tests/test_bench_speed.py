"""`ltchm bench speed`: complete records, stages that add up, settings that reach the engine. No speed is asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from ltchm_geo.benchmark.speed import STAGES, Case, beside_network, configured, measure_codec
from ltchm_geo.benchmark.speed_input import (
    bundled_scene,
    install_random_weights,
    model_tiles,
    weights_folder,
    write_mirrored,
)
from ltchm_geo.benchmark.speed_memory import measure_memory, memory_markdown
from ltchm_geo.benchmark.speed_network import measure_network, measure_systems, precisions, systems_markdown
from ltchm_geo.benchmark.speed_suite import SpeedSettings, measure_speed
from ltchm_geo.benchmark.timing import Pair, Sample, Seconds, take_turns
from ltchm_geo.cli.main import cli
from ltchm_geo.engine import load_engine
from ltchm_geo.errors import LtchmError, UsageError
from ltchm_geo.weights import available, load


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "scene.tif"
    write_mirrored(bundled_scene(), path, 512)
    return path


def test_command_measures_and_keeps_everything(tiny, tmp_path):
    kept = tmp_path / "speed.json"
    arguments = ["bench", "speed", "--side", "256", "--rounds", "2", "--batch", "1,2"]
    result = CliRunner().invoke(cli, [*arguments, "--device", "cpu", "--out", str(kept), "--json"])
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    found = json.loads(kept.read_text())
    assert {**found, "event": "result"} == events[-1]
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == (2 + 1) * 3 + 2 * 4 * 2 * len(precisions("cpu"))
    assert set(found) == {"about", "scene", "codec", "network", "systems", "memory"}
    assert {"date", "hardware", "versions", "command", "load_average", "rounds", "quality"} <= set(found["about"])
    cases = [entry["case"] for entry in found["codec"]]
    assert [case and (case["threads"], case["batch"]) for case in cases] == [None, (1, 1), (1, 2)]
    for entry in found["codec"]:
        assert entry["pixels"] == 256 * 256
        assert entry["bytes"] > 0
        assert all(len(entry[verb]["seconds"]["runs"]) == 2 for verb in ("encode", "decode"))
    assert found["codec"][0]["encode"]["speedup_over_baseline"] is None
    assert all(entry["encode"]["speedup_over_baseline"] > 0 for entry in found["codec"][1:])
    shares = [entry["decode"]["cpu_share_beside_network"] for entry in found["codec"]]
    assert shares[0] is None
    assert all(0 < share < 1 for share in shares[1:])
    assert len(found["network"]) == 2 * len(precisions("cpu"))
    assert CliRunner().invoke(cli, [*arguments, "--out", str(kept)]).exit_code == 2, "keeps what is there"


def test_command_prints_tables(tiny):
    arguments = ["bench", "speed", "--side", "256", "--rounds", "1", "--device", "cpu", "--part", "codec"]
    result = CliRunner().invoke(cli, [*arguments, "--against", "none"])
    assert result.exit_code == 0, result.output
    assert "| encode, Mpx/s " in result.output
    assert "| decode, Mpx/s " in result.output
    assert "tiny-random, cpu, 1 thr., batch 1" in result.output


def test_stages_account_for_the_time(tiny, scene):
    (speed,) = measure_codec(scene, scene, [Case("tiny-random", "cpu", 1, 1)], rounds=1, against=None)
    known = {stage for stages in STAGES.values() for stage in stages}
    for seconds, stages in ((speed.encode, speed.encode_stages), (speed.decode, speed.decode_stages)):
        assert {"network", "parameters", "entropy"} <= set(stages) <= known
        # One thread: the stages cannot take longer than the whole, and leave little of it out.
        assert 0.3 * seconds.median < sum(stages.values()) <= 1.01 * seconds.median
    for seconds, cpu in ((speed.encode, speed.encode_cpu), (speed.decode, speed.decode_cpu)):
        assert cpu.keys() >= {"network", "parameters", "entropy"}
        assert 0.3 * seconds.cpu < sum(cpu.values()) <= 1.01 * seconds.cpu
        assert beside_network(cpu) == pytest.approx(1 - cpu["network"] / sum(cpu.values()), abs=1e-4)


def test_settings_reach_the_engine_and_leave_it(tiny):
    engine = load_engine("tiny-random", "cpu")
    before = engine.threads, engine.batch
    with configured(engine, Case("tiny-random", "cpu", 3, 7)):
        assert (engine.threads, engine.batch) == (3, 7)
    assert (engine.threads, engine.batch) == before


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (1, 4), (2, 3), (3, 1)])
def test_threads_and_batch_change_no_result(tiny, scene, threads, batch):
    engine, tiles = load_engine("tiny-random", "cpu", "float32"), model_tiles(scene, 4)
    streams = engine.encode(tiles, 56)
    y, intact = engine.decode_latents(streams, 56, 256)
    with configured(engine, Case("tiny-random", "cpu", threads, batch)):
        found, _ = engine.analyse(tiles, 56)
        again, still_intact = engine.decode_latents(streams, 56, 256)
        pixels = engine.synthesise(again, 56)
    assert intact.all()
    assert still_intact.all()
    assert (again == y).all()
    assert (found != y).float().mean() < 1e-3  # another batch size may round another way
    assert np.abs(pixels - engine.synthesise(y, 56)).max() < 1e-4


def test_the_plain_network_is_the_same_network(tiny, scene):
    speed = measure_network(model_tiles(scene, 2), Case("tiny-random", "cpu", 1, 2), rounds=1, precision="float32")
    assert speed.equal_latents > 0.999
    assert speed.max_difference < 1e-4
    assert speed.pixels == 2 * 256 * 256
    assert set(speed.to_dict()["analyse"]) == {"baseline", "ours", "speedup"}


def test_systems_of_table_6_run():
    speeds = measure_systems(["ltchm", "qian2022", "segpic"], device="cpu", rounds=1)
    assert [speed.architecture for speed in speeds] == ["ltchm", "qian2022", "segpic"]
    assert all(speed.encode.median > 0 and speed.decode.median > 0 for speed in speeds)
    assert "| segpic " in systems_markdown(speeds)


def test_untrained_widths_are_measured_as_whole_files(tmp_path, monkeypatch):
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path))
    settings = SpeedSettings(parts=("codec",), channels=(32, 32), side=256, rounds=1, devices=("cpu",), against=None)
    (speed,) = measure_speed(settings).codec
    assert (speed.case.model, speed.channels) == ("random-32", 32)
    assert not any(entry.tag == "random-32" for entry, _ in available()), "nothing is left behind"


def test_memory_is_measured_in_processes_of_their_own(tiny, scene, tmp_path):
    (use,) = measure_memory(scene, tmp_path, "tiny-random", [512])
    assert all(2**26 < peak < 2**33 for peak in (use.encode, use.decode))
    assert "| 512 x 512 " in memory_markdown([use])
    with pytest.raises(LtchmError, match="no-such-model"):
        measure_memory(scene, tmp_path, "no-such-model", [256])


def test_untrained_weights_are_reproducible(scene, tmp_path):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with weights_folder(tmp_path / name):
            tag = install_random_weights(32, model_tiles(scene, 1), tmp_path / name)
            found.append(load(str(tmp_path / name / f"{tag}.safetensors")).tensors)
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(values, found[1][name]) for name, values in found[0].items())


def test_mirrored_scene_repeats_the_source(tmp_path, scene):
    write_mirrored(scene, tmp_path / "big.tif", 1300)
    with rasterio.open(scene) as small, rasterio.open(tmp_path / "big.tif") as big:
        pixels, found = small.read(), big.read()
    assert found.shape == (3, 1300, 1300)
    assert np.array_equal(found[:, :512, :512], pixels)
    assert np.array_equal(found[:, :512, 512:1024], pixels[:, :, ::-1])
    assert np.array_equal(found[:, 1024:, 1024:], pixels[:, :276, :276])


def test_unknown_baseline_is_refused(scene):
    with pytest.raises(UsageError, match="openjpeg"):
        measure_codec(scene, scene, [], against="gif")


def test_runs_take_turns_and_pairs_are_compared_round_by_round():
    order = []

    def task(name):
        return lambda: order.append(name) or len(order)

    assert take_turns([task("a"), task("b")], 2, lambda: None) == [[1, 3], [2, 4]]
    assert order == ["a", "b", "a", "b"]
    pair = Pair(seconds(2.0, 4.0, 30.0), seconds(1.0, 1.0, 10.0))
    assert pair.speedup == 3.0
    assert seconds(1.0, 4.0, 2.0).rates(4e6) == (2.0, 1.0, 4.0)
    assert seconds(1.0, 4.0, 2.0).cpu == 1.0


def seconds(*wall):
    return Seconds(tuple(Sample(value, value / 2) for value in wall))


@pytest.mark.parametrize("value", ["0", "1,x", "", "1,,2"])
def test_bad_lists_of_numbers_are_refused(value):
    result = CliRunner().invoke(cli, ["bench", "speed", "--threads", value])
    assert result.exit_code == 2
    assert "whole numbers" in result.output
