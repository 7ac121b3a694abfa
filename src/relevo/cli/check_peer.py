"""`relevo check`: is the other server one that understands all that is configured? Asks the heartbeats, if they run."""

from __future__ import annotations

from relevo.base.control import call
from relevo.base.errors import RelevoError
from relevo.cli.context import Context
from relevo.config.model import Config
from relevo.node import original

LIMIT_S = 2.0


def remarks(config: Config, context: Context) -> list[str]:
    """What a peer cannot do because it runs an original Heartbeat; nothing while no heartbeats run here."""
    if context.node not in config.nodes:
        return []
    try:
        heartbeat = call(context.paths.socket("heartbeat"), "status", timeout_s=LIMIT_S)
    except RelevoError:
        return []
    found = original.found(config, context.node, heartbeat)
    return original.limits(config, found[0].node) if found is not None else []
