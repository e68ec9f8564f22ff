"""A group of commands that imports each only when it is needed."""

from __future__ import annotations

import importlib
from typing import ClassVar, cast

import click

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """Commands by name, listed in the order one meets them.

    Attributes
    ----------
    modules : where each command is defined, under its own name
    """

    modules: ClassVar[dict[str, str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in help order."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in self.modules:
            return None
        return cast(click.Command, getattr(importlib.import_module(self.modules[cmd_name]), cmd_name))
