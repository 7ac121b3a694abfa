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


class Verbs(TyperGroup):
    """A group of commands that ends with drbdadm's exit code when a command line is wrong."""

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
