from __future__ import annotations

import json

import pytest

from ltchm_geo.cli.main import main
from ltchm_geo.cli.options import PROTOCOL
from ltchm_geo.version import __version__


def test_programs_learn_version_protocol_device_and_weights(tiny: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["about", "--device", "cpu", "--json"]) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (event["event"], event["version"], event["protocol"]) == ("result", __version__, PROTOCOL)
    assert event["device"] == "cpu"
    assert "tiny-random" in [entry["tag"] for entry in event["weights"]]
    assert event["packages"]["torch"]


def test_people_read_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["about", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"ltchm {__version__}\n")


def test_a_device_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["about", "--device", "nonsense"]) == 2
    assert "unknown device" in capsys.readouterr().err
