"""Whether the node daemon decides here: then nobody becomes Primary by hand without saying so."""

from __future__ import annotations

from relevo.base.control import DaemonUnreachable, call
from relevo.base.errors import RelevoError
from relevo.cli.context import Context


class NodeDecides(RelevoError):
    """A promotion by hand would go past the arbiter."""

    def __init__(self, mirror: str) -> None:
        super().__init__(
            f"The node daemon decides here who is Primary of {mirror}.",
            "Use relevo standby and relevo online, or --force if you know better.",
        )


def node_runs(context: Context) -> bool:
    """Whether this node's daemon answers."""
    try:
        call(context.paths.socket("node"), "status")
    except DaemonUnreachable:
        return False
    return True
