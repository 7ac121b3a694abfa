"""The verbs of drbdadm 8.4 as `relevo mirror VERB {all|RESOURCE…}`: its words, its output, its exit codes.

`outcome` says which exit code an error has and goes over the resources; `change` changes states, `life` starts and
ends, `show` prints states, `shell` is for scripts, `meta` works on the meta-data of a disk that is not in use, `procfs`
prints /proc/drbd, `stream` the events. Nothing in here decides: the mirror's process does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    import typer

USAGE = 1
"""drbdadm's exit code for a command line that cannot be meant like this."""
_OTHERWISE = 2
"""And everybody else's."""


_PANELS = {
    "See": "status role cstate dstate get-gi show-gi proc events dump",
    "Compare, and bring up to date": (
        "verify verify-stop resync pause-sync resume-sync wait-sync invalidate invalidate-remote"
    ),
    "After a split brain": "resolve saved",
    "Start, connection, disk and role": (
        "up down adjust connect disconnect wait-connect attach detach resize primary secondary outdate "
        "suspend-io resume-io new-current-uuid"
    ),
    "Meta-data, while the mirror is down": "create create-md dump-md wipe-md apply-al",
    "For systemd and for scripts": "run shims",
}
"""Part of the help -> its verbs, in its order."""
_PANEL_OF = {verb: panel for panel, verbs in _PANELS.items() for verb in verbs.split()}


class Verbs(TyperGroup):
    """A group of commands that ends with drbdadm's exit code when a command line is wrong."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Those of the help in its order, then the hidden ones."""
        names = super().list_commands(ctx)
        return [*(verb for verb in _PANEL_OF if verb in names), *(name for name in names if name not in _PANEL_OF)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, with its part of the help."""
        found: Any = super().get_command(ctx, cmd_name)
        if found is not None and cmd_name in _PANEL_OF:
            found.rich_help_panel = _PANEL_OF[cmd_name]
        return found

    def invoke(self, ctx: Any) -> Any:
        """Find and carry out the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if getattr(error, "exit_code", 0) == _OTHERWISE:
                error.exit_code = USAGE  # type: ignore[attr-defined]
            raise


def register(app: typer.Typer) -> None:
    """Add every verb to `relevo mirror`."""
    from relevo.cli.drbdadm import change, life, meta, procfs, shell, shim, shims, show, stream

    for part in (life, change, show, meta, shell, procfs, stream, shim, shims):
        part.register(app)
