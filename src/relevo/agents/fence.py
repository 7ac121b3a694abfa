"""Switching a node off with the programs of the fence-agents package.

They take `name=value` lines on standard input, and exit with 0 only when the node is off, or has been (fence-agents'
`FenceAgentAPI.md`). Levels are those of Pacemaker: all devices of one have to succeed, else the next level is tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from relevo.agents.base import AgentFailed
from relevo.agents.tools import run_tool
from relevo.config.fencing import FenceDevice


async def fence(node: str, devices: Sequence[FenceDevice]) -> str:
    """Switch a node off.

    Returns:
        how, in a few words.

    Raises:
        AgentFailed: no level has succeeded; the sentence names what each of them said.
    """
    problems: list[str] = []
    for level, members in itertools.groupby(sorted(devices, key=lambda one: one.level), key=lambda one: one.level):
        told = []
        try:
            for device in members:
                await use(node, device, device.action)
                told.append(f"{device.agent} ({device.action})")
        except AgentFailed as error:
            problems.append(f"level {level}: {error.what}")
            continue
        return f"level {level}, {', '.join(told)}"
    raise AgentFailed(f"{node} could not be fenced: {' '.join(problems)}", f"Switch {node} off by hand.")


async def use(node: str, device: FenceDevice, action: str) -> str:
    """Run one device's program.

    Args:
        node: which node it is about (`nodename`).
        device: the program, its parameters and time limit.
        action: `off`, `reboot`, `monitor`, `metadata`.

    Returns:
        what it printed.

    Raises:
        AgentFailed: it is not installed, failed, or took too long.
    """
    lines = {"action": action, "nodename": node, **device.parameters}
    given = "".join(f"{name}={value}\n" for name, value in lines.items()).encode()
    done = await run_tool(device.agent, limit_s=device.timeout_ms / 1000, given=given)
    if done.status != 0:
        raise AgentFailed(f"{device.agent}, action {action}: {done.words}.", "Try it by hand.")
    return done.output.decode(errors="replace")
