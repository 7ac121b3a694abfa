"""How one node is switched off by the others, and when."""

from __future__ import annotations

from typing import Literal

import msgspec


class FenceDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One way to switch a node off: a program of the fence-agents package, or one that speaks as they do.

    Attributes:
        agent: `fence_ipmilan`, or the path of a program.
        parameters: what it is given on its standard input, besides `action`; secrets included.
        level: devices of a level all have to succeed; when one fails the next level is tried.
        action: what confirms that the node does not write any more: `reboot` or `off`.
        timeout_ms: how long it may take.
    """

    agent: str
    parameters: dict[str, str] = {}
    level: int = 1
    action: Literal["reboot", "off"] = "reboot"
    timeout_ms: int = 60_000


class Fencing(msgspec.Struct, frozen=True, kw_only=True):
    """When nodes are fenced.

    Attributes:
        delay_ms: a node that wants to take over waits so long first: of two that have lost each other the active one
            fences first, and both are not switched off.
        retry_ms: pause after a fencing that failed.
    """

    delay_ms: int = 2000
    retry_ms: int = 15_000
