"""`ltchm bench complexity`: LTCHM by part and the paper's tables, exactly counted and by thop itself."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn

pytest.importorskip("thop", reason='needs thop: pip install ".[bench]" in a checkout')

from ltchm_geo.baselines import registry
from ltchm_geo.baselines.attention_modules import WAM
from ltchm_geo.benchmark import complexity
from ltchm_geo.benchmark.complexity import Figure, TableRow, count_parts, count_table, thop_cost
from ltchm_geo.benchmark.output import markdown_table
from ltchm_geo.benchmark.paper import paper_table
from ltchm_geo.cli.main import cli


@pytest.fixture(scope="module")
def tables():
    return {number: count_table(number) for number in (4, 5, 6)}


def rows(table):
    return {row.name: row for row in table.rows}


def test_thop_on_our_network_gives_what_the_paper_prints(tables):
    # 24.905 G and 12.336 M for the published code; ours has no transposed 1x1 skips (0.26 G, counted four times there),
    # pools by functions (0.02 G) and has quarter-width channel attention.
    ours = rows(tables[6])["Ours"]
    assert ours.thop.gmacs == pytest.approx(24.905, rel=0.015)
    assert ours.thop.parameters_m == pytest.approx(12.336, rel=0.015)


@pytest.fixture(scope="module")
def parts():
    return count_parts([64]).counts[0]


def test_parts_add_up(parts):
    for counts in (parts.exact, parts.thop):
        others = [cost for name, cost in counts.items() if name != "total"]
        assert counts["total"].macs == sum(cost.macs for cost in others)
        assert counts["total"].parameters == sum(cost.parameters for cost in others)
    assert parts.kmacs_per_pixel == parts.exact["total"].macs / 65536 / 1000
    assert parts.thop["context"].macs == 0, "thop does not see the masked convolution"


# (exact GMAC, million parameters) as counted by running the published code.
TABLE_5 = {
    "SWAtten": (106.3, 0.787),
    "SAM": (99.05, 0.758),
    "WAM, the whole module": (121.6, 0.908),
    "DAM": (6.51, 0.576),
}


@pytest.mark.parametrize("name", TABLE_5)
def test_attention_modules(tables, name):
    row = rows(tables[5])[name]
    assert (row.exact.gmacs, row.exact.parameters_m) == pytest.approx(TABLE_5[name], rel=5e-3)


def test_table_5_printed_only_the_attention_inside_wam(tables):
    row = rows(tables[5])["WAM"]
    assert row.thop.gmacs == pytest.approx(row.paper.gmacs, rel=0.02)
    assert row.exact.gmacs == pytest.approx(22.55, rel=1e-3)


def test_poolings_explain_the_figure_of_dam(tables):
    row = rows(tables[5])["DAM"]
    poolings = 18 * 8 * 192 * 128 * 128 / 1e9
    assert row.thop.gmacs + poolings == pytest.approx(row.paper.gmacs, abs=0.005)


def test_ablations_have_the_printed_parameters(tables):
    counted = [row for row in tables[4].rows if row.thop.parameters_m is not None]
    assert len(counted) >= 4
    for row in counted:
        assert row.thop.parameters_m == pytest.approx(row.paper.parameters_m, rel=0.02), row.name


def test_every_architecture_of_table_6_is_counted(tables):
    for row in tables[6].rows:
        assert row.built in registry.ARCHITECTURES
        assert row.exact.gmacs is not None, row.name
        assert row.thop.gmacs is not None, row.name


def test_every_mismatch_is_explained(tables):
    unexplained = [
        (row.name, row.mismatches) for t in tables.values() for row in t.rows if row.mismatches and not row.note
    ]
    assert not unexplained


def test_blocks_under_two_names_explain_the_figures_of_segpic(tables):
    def twice_registered():
        net = registry.build("segpic", {})
        stages = [layer for part in (net.g_a1, net.g_a2, net.g_s2, net.g_s1) for layer in part]
        net.again = nn.ModuleList(
            s for s in stages if not isinstance(s, WAM) and getattr(s, "kernel_size", 0) != (1, 1)
        )
        return net

    cost = thop_cost(complexity._on_meta(twice_registered), *complexity._meta((1, 3, 256, 256), (1,)))
    printed = rows(tables[6])["Liu2024"].paper
    assert (cost.macs / 1e9, cost.parameters / 1e6) == pytest.approx((printed.gmacs, printed.parameters_m), rel=1e-3)


def test_mismatches_compare_like_with_like():
    figures = {
        "paper": Figure(10.0, 1.0),
        "thop": Figure(10.1, 1.1),
        "exact": Figure(9.0),
        "published": Figure(None, 2.0),
    }
    row = TableRow("name", "built", note="", **figures)
    assert row.mismatches == {"parameters by thop": pytest.approx(0.1)}


def test_printed_numbers_are_the_papers():
    printed = {row["name"]: row for row in paper_table(6)["rows"]}
    assert (printed["Ours"]["gflops"], printed["Ours"]["encode_s"], printed["Ours"]["decode_s"]) == (
        24.91,
        0.124,
        0.127,
    )
    assert [row["parameters_m"] for row in paper_table(4)["rows"]] == [7.43, 8.41, 11.36, 11.24, 12.34]
    assert len(paper_table(3)["rows"]) == 9


def test_without_thop_the_exact_counts_remain(monkeypatch):
    monkeypatch.setattr(complexity, "find_spec", lambda _name: None)
    assert thop_cost(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)) is None
    result = CliRunner().invoke(cli, ["bench", "complexity", "--table", "5"])
    assert result.exit_code == 0
    assert 'pip install ".[bench]" in a checkout' in result.stderr


def test_command_prints_tables_and_keeps_them(tmp_path):
    folder = tmp_path / "complexity"
    arguments = ["bench", "complexity", "--table", "5", "--out", str(folder)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "| SWAtten " in result.output
    kept = json.loads((folder / "tab5.json").read_text())
    assert [row["name"] for row in kept["rows"]][:4] == ["SWAtten", "SAM", "WAM", "DAM"]
    assert "thop" in kept["about"]["versions"]
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 2
    assert "exists" in again.output
    assert CliRunner().invoke(cli, [*arguments, "--overwrite"]).exit_code == 0


def test_command_gives_json(monkeypatch, parts):
    monkeypatch.setattr(complexity, "_count_parts", lambda config: {64: parts}[config.channels])
    result = CliRunner().invoke(cli, ["bench", "complexity", "--table", "parts", "--channels", "64", "--json"])
    found = json.loads(result.output.splitlines()[-1])
    assert found["event"] == "result"
    assert found["parts"]["counts"][0]["exact"]["total"]["macs"] == parts.exact["total"].macs


def test_markdown_tables_are_aligned():
    text = markdown_table(["name", "value"], [["a", "1.5"], ["longer", "10"]])
    assert text.splitlines() == ["| name   | value |", "| ------ | ----: |", "| a      |   1.5 |", "| longer |    10 |"]
