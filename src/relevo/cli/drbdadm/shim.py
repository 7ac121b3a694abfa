"""A command line written for drbdadm, in our words: what the executable named drbdadm runs.

drbdadm takes what is meant for the program behind it in front of the command: `-- --overwrite-data-of-peer primary r0`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys
from typing import Annotated

import typer

from relevo import __version__
from relevo.base.errors import RelevoError
from relevo.cli.context import of
from relevo.cli.drbdadm.outcome import Exit

WITH_VALUE = frozenset({"-c", "-t", "-s", "-m", "-n", "-P", "-W", "-p"})
LONG_WITH_VALUE = frozenset(
    {
        "--config-file",
        "--config-to-test",
        "--drbdsetup",
        "--drbdmeta",
        "--sh-varname",
        "--peer",
        "--setup-option",
        "--drbd-proxy-ctl",
    }
)
RENAMED = {"status": "drbd-status"}
"""Verb of drbdadm whose name means something else here -> ours."""
QUIET = frozenset({"primary"})
"""Verbs that print more here than drbdadm does."""


class UsageWrong(RelevoError):
    """The command line is not one of drbdadm's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A command line that was understood.

    Attributes:
        config: the configuration file, if another is named.
        arguments: what follows `relevo mirror`.
        dry_run: only print it.
        version: the version was asked for, and nothing else.
    """

    config: str
    arguments: tuple[str, ...]
    dry_run: bool = False
    version: bool = False


def understood(words: list[str]) -> Line:
    """What drbdadm would do.

    Raises:
        UsageWrong: it would not know either.
    """
    general: dict[str, str] = {}
    flags: set[str] = set()
    backend: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            while rest and rest[0].startswith("-"):
                backend.append(rest.pop(0))
            break
        if name in LONG_WITH_VALUE or name in WITH_VALUE:
            if not equals and not rest:
                raise UsageWrong(f"The option {name} needs a value.")
            general[name] = value if equals else rest.pop(0)
        else:
            flags.add(word)
    unknown = flags - {"-d", "--dry-run", "-v", "--verbose", "-V", "--version", "-S", "--stacked", "-h", "--help"}
    if unknown:
        raise UsageWrong(f"Unknown option {min(unknown)}.")
    if flags & {"-V", "--version"}:
        return Line("", (), version=True)
    if flags & {"-S", "--stacked"}:
        raise UsageWrong("Stacked resources are not known here.")
    if flags & {"-h", "--help"} or rest[:1] == ["help"]:
        return Line("", ("--help",))
    if not rest:
        raise UsageWrong("No command specified")
    return Line(
        general.get("-c", general.get("--config-file", "")),
        _arguments(rest[0], backend, rest[1:]),
        dry_run=bool(flags & {"-d", "--dry-run"}),
    )


def _arguments(verb: str, backend: list[str], following: list[str]) -> tuple[str, ...]:
    quiet = ["--quiet"] if verb in QUIET else []
    return (RENAMED.get(verb, verb), *quiet, *backend, *(word for word in following if word != "--"))


def register(app: typer.Typer) -> None:
    """Add the hidden command that the executable runs."""
    app.command("drbdadm", hidden=True, context_settings={"ignore_unknown_options": True})(drbdadm)


def drbdadm(ctx: typer.Context, words: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Do what drbdadm would do with these words."""
    try:
        line = understood(words or [])
    except UsageWrong as error:
        sys.stderr.write(f"drbdadm: {error}\n")
        raise typer.Exit(Exit.USAGE) from None
    if line.version:
        typer.echo(f"DRBDADM_BUILDTAG=Relevo\\ {__version__}\nDRBDADM_API_VERSION=1\nDRBD_KERNEL_VERSION_CODE=0x08040b")
        typer.echo(f"DRBDADM_VERSION_CODE=0x08040b\nDRBDADM_VERSION=8.4.11\nRELEVO_VERSION={__version__}")
        return
    if line.dry_run:
        typer.echo(shlex.join(["relevo", "mirror", *line.arguments]))
        return
    _run(ctx, line)


def _run(ctx: typer.Context, line: Line) -> None:
    group = ctx.parent
    assert group is not None
    command = group.command
    verbs = getattr(command, "commands", {})
    verb = line.arguments[0]
    if verb not in verbs and verb != "--help":
        sys.stderr.write(f"drbdadm: Unknown command '{verb}'\n")
        raise typer.Exit(Exit.USAGE)
    if line.config:
        _configured_by(ctx, line.config)
    inner = command.make_context("drbdadm", list(line.arguments), parent=ctx.find_root())
    with inner:
        command.invoke(inner)


def _configured_by(ctx: typer.Context, path: str) -> None:
    context = of(ctx)
    context.paths = dataclasses.replace(context.paths, drbd=pathlib.Path(path))
