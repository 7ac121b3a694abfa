"""A command line written for drbdadm, in our words: what the executable named drbdadm runs.

drbdadm takes what is meant for the program behind it in front of the command: `-- --overwrite-data-of-peer primary r0`.
"""

from __future__ import annotations

import dataclasses
import getopt
import pathlib
import shlex
import sys
from collections.abc import Collection
from typing import Annotated

import typer

from relevo import __version__
from relevo.base.errors import RelevoError
from relevo.cli.context import of
from relevo.cli.drbdadm.outcome import ALL, Exit

SHORT = "c:t:s:m:n:P:W:p:dvVSh"
LONG = (
    *("config-file=", "config-to-test=", "drbdsetup=", "drbdmeta=", "drbd-proxy-ctl=", "sh-varname=", "peer="),
    *("setup-option=", "dry-run", "verbose", "version", "stacked", "help"),
)
"""drbdadm's general options, as getopt takes them."""
RENAMED = {"status": "drbd-status", "adjust-with-progress": "adjust", "wait-con-int": "wait-connect"}
"""Verb of drbdadm that is called otherwise here, or whose name means something else -> ours."""
EVERYTHING = "wait-con-int"
"""The verb that names no resource because it means all."""
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


def understood(words: list[str], verbs: Collection[str]) -> Line:
    """What drbdadm would do.

    Args:
        words: its command line.
        verbs: those that are known; the first of them ends what stands behind a leading `--`.

    Raises:
        UsageWrong: it would not know either.
    """
    try:
        found, rest = getopt.getopt(words, SHORT, LONG)
    except getopt.GetoptError as error:
        raise UsageWrong(f"{error.msg[0].upper()}{error.msg[1:]}.") from error
    general = dict(found)
    if general.keys() & {"-V", "--version"}:
        return Line("", (), version=True)
    if general.keys() & {"-S", "--stacked"}:
        raise UsageWrong("Stacked resources are not known here.")
    backend: list[str] = []
    if rest and rest[0].startswith("-"):
        plain = (at for at, word in enumerate(rest) if not word.startswith("-"))
        end = next((at for at, word in enumerate(rest) if word in verbs or word in RENAMED), next(plain, len(rest)))
        backend, rest = rest[:end], rest[end:]
    if general.keys() & {"-h", "--help"} or rest[:1] == ["help"]:
        return Line("", ("--help",))
    if not rest:
        raise UsageWrong("No command specified")
    return Line(
        general.get("-c", general.get("--config-file", "")),
        _arguments(rest[0], backend, rest[1:]),
        dry_run=bool(general.keys() & {"-d", "--dry-run"}),
    )


def _arguments(verb: str, backend: list[str], following: list[str]) -> tuple[str, ...]:
    quiet = ["--quiet"] if verb in QUIET else []
    names = [word for word in following if word != "--"] or ([ALL] if verb == EVERYTHING else [])
    return (RENAMED.get(verb, verb), *quiet, *backend, *names)


def register(app: typer.Typer) -> None:
    """Add the hidden command that the executable runs."""
    app.command("drbdadm", hidden=True, context_settings={"ignore_unknown_options": True})(drbdadm)


def drbdadm(ctx: typer.Context, words: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Do what drbdadm would do with these words."""
    try:
        line = understood(words or [], _verbs(ctx))
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


def _verbs(ctx: typer.Context) -> Collection[str]:
    """The verbs of `relevo mirror`."""
    assert ctx.parent is not None
    verbs: dict[str, object] = getattr(ctx.parent.command, "commands", {})
    return verbs


def _run(ctx: typer.Context, line: Line) -> None:
    assert ctx.parent is not None
    command = ctx.parent.command
    verb = line.arguments[0]
    if verb not in _verbs(ctx) and verb != "--help":
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
