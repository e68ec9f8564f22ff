"""The report's parts about complexity, speed, training and provenance, from stored JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ltchm_geo.benchmark.report_document import (
    Block,
    Command,
    Folded,
    Heading,
    Paragraph,
    Plots,
    Section,
    Table,
    number,
)
from ltchm_geo.benchmark.report_plots import line_plot
from ltchm_geo.benchmark.results import RdResult, summarise
from ltchm_geo.training.recipe import Recipe

__all__ = ["about_section", "complexity_section", "equal_budget_tables", "speed_section", "training_section"]

Stored = Mapping[str, Mapping[str, Any]]

_BASELINE = "ltchm-neither"
_SIZES = ("architecture", "model", "options")


# --- complexity ------------------------------------------------------------------------------------------------------


def complexity_section(stored: Stored) -> Section:
    """Tables written by ``ltchm bench complexity --out``."""
    blocks: list[Block] = [
        Paragraph(
            "Giga multiply-accumulates (G) and million parameters (M). Exact: every product of a value with a weight. "
            "thop: what the tool says that the paper's figures are from; it misses masked and dynamic convolutions and "
            "GDN, and counts transposed convolutions four times."
        )
    ]
    for found in stored.values():
        blocks.append(Heading(found["title"]))
        blocks += _parts(found["counts"]) if "counts" in found else _paper_table(found["rows"])
    return Section("Complexity", blocks)


def _paper_table(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    kinds = {"paper": "paper", "thop": "ours by thop", "exact": "ours, exact", "published": "published code, exact"}
    header = ["", *(f"{kind}: {unit}" for kind in kinds.values() for unit in ("G", "M"))]
    cells = [
        [row["name"], *(number(row[kind][key]) for kind in kinds for key in ("gmacs", "parameters_m"))] for row in rows
    ]
    notes = [[row["name"], _differences(row["mismatches"]), row["note"]] for row in rows if row["note"]]
    table = Table(header, cells)
    return [table, Table(["", "beyond 2 %", "why"], notes, texts=frozenset({1, 2}))] if notes else [table]


def _differences(mismatches: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:+.1%}" for name, value in mismatches.items())


def _parts(counts: Sequence[Mapping[str, Any]]) -> list[Block]:
    header = ["part", *(f"N = {count['channels']}: {unit}" for count in counts for unit in ("G", "M"))]
    kinds = [("exact", name, name) for name in counts[0]["exact"]]
    kinds += [("thop", "total", "total, by thop")] if counts[0]["thop"] else []
    rows = [
        [
            label,
            *(
                text
                for count in counts
                for text in (
                    number(count[kind][name]["macs"] / 1e9, 2),
                    number(count[kind][name]["parameters"] / 1e6, 2),
                )
            ),
        ]
        for kind, name, label in kinds
    ]
    return [Table(header, rows)]


# --- speed -----------------------------------------------------------------------------------------------------------


def speed_section(stored: Stored) -> Section:
    """Results of ``ltchm bench speed --out``."""
    blocks: list[Block] = [Paragraph("Medians and ranges of runs that took turns. Stages: share of the work.")]
    for name, found in stored.items():
        about = found["about"]
        hardware = about["hardware"]
        load = " to ".join(str(value) for value in about["load_average"])
        blocks.append(Heading(name))
        blocks.append(
            Paragraph(
                f"{hardware['gpu'] or hardware['cpu']}, {hardware['cores']} cores, load {load}; "
                f"{found['scene']['source']}, {found['scene']['side']} pixels a side, quality {about['quality']}"
            )
        )
        blocks += [_whole_files(found["codec"], verb) for verb in ("encode", "decode") if found["codec"]]
        blocks += [_networks(found["network"])] if found["network"] else []
        blocks += [_systems(found["systems"])] if found["systems"] else []
    return Section("Speed", blocks)


def _whole_files(entries: Sequence[Mapping[str, Any]], verb: str) -> Table:
    from ltchm_geo.benchmark.speed import STAGES

    others = ", ".join(dict.fromkeys(entry["label"] for entry in entries if entry["case"] is None)) or "the other"
    rows = []
    for entry in entries:
        found, stages = entry[verb], entry[verb]["stages"]
        total = sum(stages.values())
        shares = (sum(stages.get(stage, 0.0) for stage in group) for group in STAGES.values())
        rows.append(
            [
                entry["label"],
                _range(found["mpx_s"]),
                f"{entry['pixels'] / found['seconds']['cpu'] / 1e6:.3g}",
                number(found["speedup_over_baseline"], 3),
                *(f"{share / total:.0%}" if total else "-" for share in shares),
            ]
        )
    return Table([f"{verb}, whole files", "Mpx/s", "Mpx per CPU s", f"times {others}", *STAGES], rows)


def _networks(entries: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for entry in entries:
        case = entry["case"]
        label = f"{case['model']}, {case['device']}, {case['threads']} thr., batch {case['batch']}"
        label += f", {entry['precision']}" if "precision" in entry else ""  # older results have float32 only
        rows.append([label, *(text for name in ("analyse", "synthesise") for text in _compared(entry, name))])
    columns = ("plain", "engine", "times", "times, CPU")
    header = [f"{name}: {column}" for name in ("g_a + h_a", "g_s") for column in columns]
    return Table(["network alone, Mpx/s", *header], rows)


def _compared(entry: Mapping[str, Any], name: str) -> list[str]:
    plain, engine = entry[name]["baseline"], entry[name]["ours"]
    rates = [f"{entry['pixels'] / seconds['median'] / 1e6:.3g}" for seconds in (plain, engine)]
    return [*rates, number(entry[name]["speedup"]), number(plain["cpu"] / engine["cpu"])]


def _systems(entries: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            entry["architecture"],
            entry["device"],
            str(entry["threads"]),
            *(text for verb in ("encode", "decode") for text in (_range(entry[verb]), f"{entry[verb]['cpu']:.3g}")),
        ]
        for entry in entries
    ]
    return Table(["3 x 256 x 256, untrained", "device", "threads", "g_a (s)", "CPU s", "g_s (s)", "CPU s"], rows)


def _range(found: Mapping[str, Any]) -> str:
    return f"{found['median']:.3g} ({found['min']:.3g}-{found['max']:.3g})"


# --- training --------------------------------------------------------------------------------------------------------


def training_section(trained: Sequence[RdResult], rd: Sequence[RdResult]) -> Section:
    """Checkpoints: architectures at equal budget, and how BD-rate falls over the steps of a run."""
    blocks: list[Block] = [
        Paragraph("Rates of checkpoints are estimated: the entropy of the latents under the network, no file.")
    ]
    for title, table in equal_budget_tables(trained):
        blocks += [Paragraph(title), table]
    for dataset in dict.fromkeys(result.dataset for result in trained):
        anchors = [result for result in rd if result.dataset == dataset and result.codec == "openjpeg97"]
        lines = _progress([result for result in trained if result.dataset == dataset], anchors)
        if lines:
            plot = line_plot(lines, "steps", "BD-rate to JPEG 2000 9/7 (%)")
            blocks.append(Plots([(plot, f"{dataset}: rate at equal PSNR over training, averaged curve")]))
    return Section("Training", blocks)


def equal_budget_tables(trained: Sequence[RdResult]) -> list[tuple[str, Table]]:
    """A table, and what it is of, for each set of runs whose recipes, steps and images are equal.

    The baseline is the network without either attention, or the first run if there is none.
    """
    groups: dict[str, list[RdResult]] = {}
    for result in trained:
        checkpoint = result.about["checkpoint"]
        # Through `Recipe`, so that a setting newer than the checkpoint has its default.
        recipe = Recipe.from_dict(checkpoint["recipe"]).to_dict()
        budget = {key: value for key, value in recipe.items() if key not in _SIZES}
        key = json.dumps([result.dataset, result.images, checkpoint["step"], budget], sort_keys=True)
        groups.setdefault(key, []).append(result)
    return [_equal_budget(group) for group in groups.values() if len(group) > 1]


def _equal_budget(group: Sequence[RdResult]) -> tuple[str, Table]:
    baseline = next((result for result in group if _architecture(result) == _BASELINE), group[0])
    rows = [
        [
            row.codec,
            _architecture(result),
            number(row.bd_rate, 2, sign=True),
            number(row.bd_rate_per_image, 2, sign=True),
            number(row.bd_psnr, 3, sign=True),
        ]
        for row, result in zip(summarise(group, baseline.codec), group, strict=True)
    ]
    first = group[0]
    title = (
        f"{first.dataset}, {len(first.images)} images, {first.about['checkpoint']['step']} steps each, against "
        f"{_architecture(baseline)}: rate at equal PSNR (%) and PSNR at equal rate (dB)"
    )
    return title, Table(["run", "architecture", "averaged curve", "mean of images", "BD-PSNR"], rows, frozenset({1}))


def _progress(trained: Sequence[RdResult], anchors: Sequence[RdResult]) -> list[tuple[str, list[tuple[float, float]]]]:
    """BD-rate by step for every recipe that was measured more than once."""
    runs: dict[str, list[RdResult]] = {}
    for result in trained:
        runs.setdefault(json.dumps(result.about["checkpoint"]["recipe"], sort_keys=True), []).append(result)
    lines = []
    for run in runs.values():
        rows = summarise([*anchors, *run], "openjpeg97")[len(anchors) :]
        steps = (float(result.about["checkpoint"]["step"]) for result in run)
        points = sorted(
            (step, row.bd_rate) for step, row in zip(steps, rows, strict=False) if row.bd_rate == row.bd_rate
        )
        if len(points) > 1:
            lines.append((f"{_architecture(run[0])} ({run[0].codec})", points))
    return lines


def _architecture(result: RdResult) -> str:
    return str(result.about["checkpoint"]["recipe"]["architecture"])


# --- provenance ------------------------------------------------------------------------------------------------------


def about_section(measured: Sequence[tuple[str, Mapping[str, Any]]], command: str) -> Section:
    """Versions, commands and hardware of (what, about) pairs, and how to make this page."""
    rows = [
        [name, str(about.get("date", "-")), _hardware(about), str(about.get("command", "-")), _versions(about)]
        for name, about in measured
    ]
    table = Table(["result", "date", "hardware", "command", "versions"], rows, frozenset({2, 3, 4}))
    return Section("Versions, commands, hardware", [Folded(f"{len(rows)} results", [table]), Command(command)])


def _hardware(about: Mapping[str, Any]) -> str:
    found = about.get("hardware", {})
    return ", ".join(str(found[key]) for key in ("gpu", "cpu", "system") if found.get(key)) + (
        f", {found['cores']} cores" if "cores" in found else ""
    )


def _versions(about: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
