"""Options that several `ltchm bench` commands have alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

dataset_option: Callable[..., Any] = click.option(
    "--dataset",
    default="bundled",
    show_default=True,
    metavar="NAME",
    help="A data set of benchmarks/datasets, a TOML file, or a folder of rasters.",
)

data_option: Callable[..., Any] = click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the data set's files."
)

replace_file_option: Callable[..., Any] = click.option("--overwrite", is_flag=True, help="Replace that file.")


def results_option(default: str, help_text: str = "Where results are kept.") -> Callable[..., Any]:
    """``--out DIR``, by default a folder of the repository."""
    return click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(default),
        show_default=True,
        metavar="DIR",
        help=help_text,
    )
