"""Options under headings: a command with two dozen of them is no list to read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["SectionedCommand", "under"]

F = TypeVar("F", bound=Callable[..., Any])

_REST = "Options"


class SectionedCommand(click.Command):
    """A command whose help lists options by the headings that `under` gave them; the others come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading, in the order of their first options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "heading", _REST), []).append(record)
        sections[_REST] = sections.pop(_REST)  # --help at least
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def under(heading: str, *options: Callable[[F], F]) -> Callable[[F], F]:
    """Decorate a command with `options`, which its help lists under `heading`."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
            # click keeps what decorators gather, the last one last, until the command itself is made.
            command.__click_params__[-1].heading = heading  # type: ignore[attr-defined]
        return command

    return decorate
