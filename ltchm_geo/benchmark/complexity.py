"""Parameters and multiply-accumulates (MACs): LTCHM by part, and Tab. 4-6 of the paper recounted.

Two ways of counting stand side by side. *Exact* is `nn.complexity`: every product of a value with a weight. *thop* is
what the package of that name prints, the counter behind the paper's figures, run as it is. It sees the calls of known
kinds of modules only: it misses masked and dynamic convolutions, GDN, attention products and bare parameters; it counts
a transposed convolution by its output pixels, four times too much at stride 2; it counts the additions of poolings and
norms as if they were MACs; of parameters it counts those of the modules it knows; and a module that hangs in a network
under two names has its parameters counted twice and its MACs four times.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ltchm_geo.baselines import attention_modules, registry
from ltchm_geo.benchmark.environment import environment
from ltchm_geo.benchmark.output import markdown_table
from ltchm_geo.benchmark.paper import paper_table
from ltchm_geo.errors import installing
from ltchm_geo.nn.attention import DAM
from ltchm_geo.nn.complexity import Cost, count_complexity, count_cost
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.model import LTCHM

__all__ = [
    "CHANNELS",
    "Figure",
    "PaperTable",
    "PartsCount",
    "PartsTable",
    "TableRow",
    "count_parts",
    "count_table",
    "thop_cost",
    "thop_hint",
]

CHANNELS = (64, 128, 192, 256)
_SIDE = 256
#: From here on, a difference to the paper or to the published code is explained beside it.
_NOTEWORTHY = 0.02


# --- thop ------------------------------------------------------------------------------------------------------------


def thop_hint() -> str | None:
    """What to do for thop's counts; None if they can be had."""
    if find_spec("thop"):
        return None
    return f"thop is not installed, so its counts are left out: {installing('bench')}"


def _meta(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(shape, device="meta") for shape in shapes)


def _on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """A module that takes neither memory nor time. Only built so: thop's own sums must be on a real device."""
    with torch.device("meta"):
        return build().eval()


def thop_cost(module: nn.Module, *inputs: Tensor) -> Cost | None:
    """What thop counts for one pass of `module`, a throw-away one: thop leaves marks in it. None without thop."""
    return None if thop_hint() else _thop(module, *inputs)[0]


def _thop(module: nn.Module, *inputs: Tensor) -> tuple[Cost, dict[str, Any]]:
    """thop's result, and its tree of (MACs, parameters, children) by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of distutils, which thop imports
        from thop import profile
    macs, parameters, tree = profile(module, inputs, verbose=False, ret_layer_info=True)
    return Cost(int(parameters), int(macs)), tree


# --- LTCHM by part ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartsCount:
    """LTCHM with `channels` channels on 3 x 256 x 256.

    Attributes
    ----------
    exact, thop : Cost by part, and "total"; thop is empty where it is not installed
    kmacs_per_pixel : exact
    """

    channels: int
    exact: dict[str, Cost]
    thop: dict[str, Cost]
    kmacs_per_pixel: float


@dataclass(frozen=True)
class PartsTable:
    """LTCHM by part, at several widths."""

    title: ClassVar[str] = "LTCHM by part, 3 x 256 x 256"
    counts: tuple[PartsCount, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {"title": self.title, "about": _about(), **asdict(self)}

    def markdown(self) -> str:
        """GMAC and million parameters by part, a pair of columns for each width."""
        header = ["part", *(f"N = {c.channels}: {unit}" for c in self.counts for unit in ("GMAC", "M"))]
        rows = [[name, *_cells(c.exact[name] for c in self.counts)] for name in self.counts[0].exact]
        rows.append(["kMAC / pixel", *(text for c in self.counts for text in (f"{c.kmacs_per_pixel:.1f}", ""))])
        if self.counts[0].thop:
            rows.append(["total, thop", *_cells(c.thop["total"] for c in self.counts)])
        return markdown_table(header, rows)


def count_parts(channels: Sequence[int] = CHANNELS) -> PartsTable:
    """Count LTCHM by part."""
    return PartsTable(tuple(_count_parts(ModelConfig(channels=n)) for n in channels))


def _count_parts(config: ModelConfig) -> PartsCount:
    counted = count_complexity(config, _SIDE, _SIDE)
    exact = {**counted.parts, "total": Cost(counted.parameters, counted.macs)}
    return PartsCount(config.channels, exact, _thop_parts(config), counted.kmacs_per_pixel)


def _thop_parts(config: ModelConfig) -> dict[str, Cost]:
    if thop_hint():
        return {}
    total, tree = _thop(_on_meta(lambda: LTCHM(config)), *_meta((1, 3, _SIDE, _SIDE), (1,)))
    parts = {name: Cost(int(found[1]), int(found[0])) for name, found in tree.items()}
    return {**parts, "total": total}


def _cells(costs: Iterable[Cost]) -> list[str]:
    return [text for cost in costs for text in (f"{cost.macs / 1e9:.3f}", f"{cost.parameters / 1e6:.3f}")]


# --- the paper's tables ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """One way of counting one thing; None where there is no figure.

    Attributes
    ----------
    gmacs, parameters_m : 1e9 MACs and 1e6 parameters
    """

    gmacs: float | None = None
    parameters_m: float | None = None

    @classmethod
    def of(cls, cost: Cost | None) -> Figure:
        """A cost in these units."""
        return cls() if cost is None else cls(cost.macs / 1e9, cost.parameters / 1e6)


@dataclass(frozen=True)
class TableRow:
    """A row of one of the paper's tables, recounted.

    Attributes
    ----------
    name : the paper's
    built : name of our version
    paper : printed there
    thop, exact : our version, counted by thop and exactly; empty if we have none
    published : the published code, counted exactly
    note : why figures that should agree do not
    """

    name: str
    built: str
    paper: Figure
    thop: Figure
    exact: Figure
    published: Figure
    note: str

    @property
    def mismatches(self) -> dict[str, float]:
        """Relative differences beyond 2 %: thop's counts to the printed ones, exact ones to the published code's."""
        pairs = {
            "MACs by thop": (self.thop.gmacs, self.paper.gmacs),
            "parameters by thop": (self.thop.parameters_m, self.paper.parameters_m),
            "exact MACs": (self.exact.gmacs, self.published.gmacs),
            "exact parameters": (self.exact.parameters_m, self.published.parameters_m),
        }
        found = {name: ours / theirs - 1 for name, (ours, theirs) in pairs.items() if ours and theirs}
        return {name: value for name, value in found.items() if abs(value) > _NOTEWORTHY}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {**asdict(self), "mismatches": self.mismatches}


@dataclass(frozen=True)
class PaperTable:
    """Table 4, 5 or 6 of the paper, recounted."""

    title: str
    rows: tuple[TableRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "title": self.title,
            "about": _about(),
            "rows": [r.to_dict() for r in self.rows],
        }

    def markdown(self) -> str:
        """The table and, below it, why figures differ."""
        header = ["", "ours", "paper: G", "M", "thop: G", "M", "exact: GMAC", "M", "published code: GMAC", "M"]
        body = []
        for row in self.rows:
            figures = (row.paper, row.thop, row.exact, row.published)
            body.append([row.name, row.built, *(_number(v) for f in figures for v in (f.gmacs, f.parameters_m))])
        notes = [_explained(row) for row in self.rows if row.mismatches or row.note]
        return "\n".join([markdown_table(header, body), *(["", *notes] if notes else [])])


def count_table(number: int) -> PaperTable:
    """Recount table 4, 5 or 6. Rows of architectures that are not there are kept, without counts."""
    table = paper_table(number)
    shape = tuple(table.get("shape", (1, 3, _SIDE, _SIDE)))
    rows = [*table["rows"], *table.get("also", [])]
    return PaperTable(f"Tab. {number}. {table['title']}", tuple(_row(row, shape) for row in rows))


def _row(row: dict[str, Any], shape: tuple[int, ...]) -> TableRow:
    build = _builder(row, shape[1])
    exact = thop = None
    if build is not None:
        inputs = _meta(shape) if "module" in row else _meta(shape, shape[:1])
        exact, thop = count_cost(_on_meta(build), *inputs), thop_cost(_on_meta(build), *inputs)
    return TableRow(
        name=row["name"],
        built=row.get("architecture") or ".".join(row[key] for key in ("module", "submodule") if key in row),
        paper=Figure(row.get("gflops"), row.get("parameters_m")),
        thop=Figure.of(thop),
        exact=Figure.of(exact),
        published=Figure(row.get("exact_gmacs"), row.get("exact_parameters_m")),
        note=row.get("note", ""),
    )


def _builder(row: dict[str, Any], channels: int) -> Callable[[], nn.Module] | None:
    """How to build what a row counts; None where there is no such architecture."""
    if "module" in row:
        kind = DAM if row["module"] == "DAM" else getattr(attention_modules, row["module"])
        return lambda: kind(channels).get_submodule(row.get("submodule", ""))
    name = row["architecture"]
    return (lambda: registry.build(name, {})) if name in registry.ARCHITECTURES else None


def _explained(row: TableRow) -> str:
    differences = ", ".join(f"{name} {value:+.1%}" for name, value in row.mismatches.items())
    return f"- {row.name}{f' ({differences})' if differences else ''}: {row.note}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _about() -> dict[str, Any]:
    return environment(["torch", "thop"])
