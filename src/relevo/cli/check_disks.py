"""`relevo check` looks whether the disks that the configuration gives this server are there."""

from __future__ import annotations

from collections.abc import Iterator

from relevo.config.model import Config


def remarks(config: Config, me: str) -> Iterator[str]:
    """What is missing, a sentence each.

    Args:
        config: the cluster.
        me: the node that this machine is; one that is not in it has no disks.
    """
    node = config.nodes.get(me)
    for mirror, disk in sorted(node.disks.items()) if node is not None else ():
        if not disk.exists():
            yield (
                f"There is no {disk} on this machine, the disk of mirror {mirror!r} on {me}: the mirror will not "
                f"start. Correct [nodes.{me}] disks, or attach it."
            )
