"""Which mirrors are meant, and what drbdadm's exit codes say about what happened to them."""

from __future__ import annotations

import enum
import functools
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from relevo.base.control import DaemonUnreachable, Message, Refused, call
from relevo.base.errors import RelevoError
from relevo.cli.context import Context, of
from relevo.cli.drbdadm.advice import advised
from relevo.cli.local_time import localised
from relevo.cli.mirror_names import chosen as only_one
from relevo.cli.mirror_names import none_here
from relevo.cli.node_runs import node_runs
from relevo.config.errors import ConfigErrors
from relevo.config.model import MirrorSite
from relevo.config.site import NoDiskHere, NoSuchMirror, find_site, sites_here

ALL = "all"
SHIM = "drbdadm"
"""Name of the command that the executable of this name runs."""
REQUEST_TIMEOUT_S = 120.0
"""How long a change of state may take (drbdadm's own limit for the long ones is 121 s)."""
Names = Annotated[list[str], typer.Argument(metavar="{all|RESOURCE…}", help="Names of mirrors, such as r0, or all.")]

MaybeNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[all|RESOURCE…]", help="Names of mirrors, or all; none is needed if there is only one."),
]
"""For verbs that give up nothing and stop nothing: there the only mirror is meant when none is named."""


class Exit(enum.IntEnum):
    """drbdadm's exit codes; `all` ends with the highest, and with the first from FAILED on."""

    OK = 0
    USAGE = 1
    """No such command or resource; no meta-data; a question was not answered with yes."""
    WORSE = 5
    """wait-connect, wait-sync: the time is over. outdate: the copy is Inconsistent, which is worse anyway."""
    NOT_CONFIGURED = 10
    """The configuration is wrong, the mirror is not up, or what is asked for is so already."""
    STATE = 11
    """The states of both sides do not allow it."""
    NO_DISK = 16
    """There is no disk here."""
    NO_UP_TO_DATE_DISK = 17
    """It needs access to data that is up to date."""
    FAILED = 20
    """The system refused."""


_BY_ERROR = {
    "AlreadySet": Exit.NOT_CONFIGURED,
    "BackingUnusable": Exit.NOT_CONFIGURED,
    "DataNotUpToDate": Exit.NO_UP_TO_DATE_DISK,
    "InconsistentAnyway": Exit.WORSE,
    "InUse": Exit.FAILED,
    "MetadataUnclean": Exit.USAGE,
    "LastCopy": Exit.NO_UP_TO_DATE_DISK,
    "MetadataExists": Exit.USAGE,
    "NodeDecides": Exit.STATE,
    "NeedStandAlone": Exit.NOT_CONFIGURED,
    "NeverInUse": Exit.NO_UP_TO_DATE_DISK,
    "NoDisk": Exit.NO_UP_TO_DATE_DISK,
    "NotConfirmed": Exit.USAGE,
    "NoLocalDisk": Exit.NO_DISK,
    "NoMetadata": Exit.USAGE,
    "NotAttached": Exit.NO_DISK,
    "UnknownRequest": Exit.FAILED,
}
"""Name of an error's type, here or in the mirror's process; what is not named is a matter of states."""


def exit_code(error: RelevoError) -> Exit:
    """The code that drbdadm has for what happened."""
    name = error.error if isinstance(error, Refused) else type(error).__name__
    if name in _BY_ERROR:
        return _BY_ERROR[name]
    if isinstance(error, DaemonUnreachable | ConfigErrors):
        return Exit.NOT_CONFIGURED
    if isinstance(error, NoSuchMirror | NoDiskHere | Usage):
        return Exit.USAGE
    return Exit.STATE if isinstance(error, Refused) else Exit.FAILED


class Usage(RelevoError):
    """The command line cannot be meant like this."""


Action = Callable[[MirrorSite], int | None]


def is_shim(ctx: typer.Context) -> bool:
    """Whether the executable named drbdadm was called, whose words and silence are not ours to change."""
    here: typer.Context | None = ctx
    while here is not None:
        if here.info_name == SHIM:
            return True
        here = here.parent  # type: ignore[assignment]
    return False


def note(ctx: typer.Context, site: MirrorSite, sentence: str) -> None:
    """Tell a person how to go on, on standard error; scripts that called drbdadm are told nothing."""
    if not is_shim(ctx):
        typer.echo(f"relevo: {site.mirror.name}: {sentence}", err=True)


def over(ctx: typer.Context, names: list[str] | None, action: Action) -> None:
    """Carry out a verb for each mirror that is meant, and end the process with drbdadm's code.

    Each error is told in its sentence on standard error; the others are gone on with, as drbdadm does.
    """
    raise typer.Exit(_over(of(ctx), names or [], action, strict=is_shim(ctx)))


def _over(context: Context, names: list[str], action: Action, *, strict: bool) -> int:
    worst = 0
    decided = functools.cache(lambda: node_runs(context))
    try:
        chosen = resolve(context, names if names or strict else [only_one(context, None)])
    except RelevoError as error:
        sys.stderr.write(f"relevo: {localised(str(error))}\n")
        return exit_code(error)
    if not chosen:
        sys.stderr.write(f"relevo: {' '.join(none_here(context))}\n")
    for site in chosen:
        try:
            code = int(action(site) or 0)
        except RelevoError as error:
            name = site.mirror.name
            sys.stderr.write(f"relevo: {name}: {localised(advised(error, name, decided=decided()))}\n")
            code = exit_code(error)
        except OSError as error:
            sys.stderr.write(f"relevo: {site.mirror.name}: {error}\n")
            code = Exit.FAILED
        if code >= Exit.FAILED:
            return code
        worst = max(worst, code)
    return worst


def resolve(context: Context, names: list[str]) -> list[MirrorSite]:
    """The mirrors that are meant: `all`, names, `minor-N`, or NAME/0 (there is one volume in each).

    Raises:
        ConfigErrors: the configuration is wrong.
        NoSuchMirror, NoDiskHere: nothing of that name here.
        Usage: a volume that cannot be.
    """
    if not names:
        raise Usage("No resource is named.", "Name one, or all.")
    if names == [ALL]:
        return list(sites_here(context.paths, context.node))
    return [_one(context, name) for name in names]


def _one(context: Context, name: str) -> MirrorSite:
    name, slash, volume = name.partition("/")
    if slash and volume != "0":
        raise Usage(f"Mirror {name} has no volume {volume!r}.", "Each mirror has one, number 0.")
    if name.startswith("minor-"):
        for site in sites_here(context.paths, context.node):
            if f"minor-{site.minor}" == name:
                return site
    return find_site(context.paths, context.node, name)


def ask(context: Context, site: MirrorSite, do: str, **arguments: object) -> Message:
    """Ask a mirror's process, and wait for its answer.

    Raises:
        DaemonUnreachable: it does not run.
        Refused: it says no.
    """
    return call(context.paths.socket(f"mirror-{site.mirror.name}"), do, timeout_s=REQUEST_TIMEOUT_S, **arguments)
