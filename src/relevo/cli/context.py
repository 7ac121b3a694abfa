"""What every command needs: where things lie, which node this is, and how errors reach the user."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import typer

from relevo.base.control import DaemonUnreachable, Message, call
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.cli.local_time import localised
from relevo.config.load import load, whoami
from relevo.config.model import Config

EXIT_FAILED = 1


@dataclasses.dataclass(slots=True)
class Context:
    """The options that stand before the command.

    Attributes:
        paths: the folders of this server.
        node: the name of this node.
    """

    paths: Paths
    node: str

    def config(self) -> Config:
        """The checked configuration.

        Raises:
            RelevoError: it is missing or wrong, or this host is not in it.
        """
        config = load(self.paths.config)
        whoami(config, self.node)
        return config

    def arguments(self) -> list[str]:
        """The options before the command that lead another process to the same place."""
        paths = self.paths
        places = {"--etc": paths.etc, "--state": paths.state, "--run": paths.run, "--drbd-conf": paths.drbd}
        told = [word for option, path in places.items() for word in (option, str(path.absolute()))]
        return [*told, "--node", self.node]


def context(paths: Paths, node: str | None) -> Context:
    """The context of this invocation; the node's name is `uname -n` unless given."""
    return Context(paths, node or os.uname().nodename)


def of(ctx: typer.Context) -> Context:
    """The context that the main call-back stored."""
    found = ctx.find_root().obj
    assert isinstance(found, Context)
    return found


class NoServer(RelevoError):
    """Nothing is configured on this machine."""


NODE_TIMEOUT_S = 60.0
"""How long the node daemon has for an answer, where a request needs no longer."""


def ask_node(ctx: typer.Context, do: str, *, timeout_s: float = NODE_TIMEOUT_S, **arguments: Any) -> Message:
    """Ask this server's node daemon, and wait for its answer.

    Raises:
        NoServer: nobody answers, and nothing is configured for a node daemon here.
        DaemonUnreachable: nobody answers.
        Refused: it says no.
    """
    context = of(ctx)
    with node_meant(context):
        return call(context.paths.socket("node"), do, timeout_s=timeout_s, **arguments)


@contextlib.contextmanager
def node_meant(context: Context) -> Iterator[None]:
    """Turn the silence of a node daemon that nobody has configured into a sentence about that. Raises NoServer."""
    try:
        yield
    except DaemonUnreachable as error:
        if context.paths.config.exists():
            raise
        what = f"This machine is no server of a cluster: there is no {context.paths.config}."
        if _has_mirrors(context):
            raise NoServer(what, f"The mirrors of {context.paths.drbd} are shown by relevo mirror proc.") from error
        raise NoServer(what, "Type it on a server; in the lab: relevo lab run nodo1 -- relevo status.") from error


def _has_mirrors(context: Context) -> bool:
    """Whether a drbd.conf alone configures mirrors here."""
    from relevo.config.site import sites_here

    try:
        return bool(sites_here(context.paths, context.node))
    except RelevoError:
        return context.paths.drbd.exists()  # it is wrong: they will say where


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


@contextlib.contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Turn an error of ours into its sentence on standard error and exit status 1."""
    try:
        yield
    except RelevoError as error:
        sys.stderr.write(f"relevo: {localised(str(error))}\n")
        raise SystemExit(EXIT_FAILED) from error
    except PermissionError as error:
        sys.stderr.write(f"relevo: {error.filename}: permission denied. Run as root.\n")
        raise SystemExit(EXIT_FAILED) from error
    except OSError as error:
        if error.filename is None:  # not about a file that somebody named: a mistake of ours, to be seen whole
            raise
        sys.stderr.write(f"relevo: {os.fsdecode(error.filename)}: {error.strerror}. Is that the right place?\n")
        raise SystemExit(EXIT_FAILED) from error
