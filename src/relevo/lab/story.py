"""Follow a lab until it is as wanted: what the demonstration, the measurements and the tests have in common."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec

from relevo.base.errors import RelevoError
from relevo.lab.lab import Lab
from relevo.lab.scene import MIRROR

SERVICE = "web"
STAGE_LIMIT_S = 60.0
"""How long any stage may take before it is declared failed."""

Status = dict[str, Any]


class StageFailed(RelevoError):
    """A stage did not end as it must."""


class Story:
    """A lab that is up, and what its nodes say.

    Args:
        lab: two servers and a client.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def status(self, node: str) -> Status:
        """The cluster as one node sees it now.

        Raises:
            StageFailed: its node daemon does not answer.
        """
        done = self._lab.run(node, ["relevo", "status", "--json"], capture=True)
        if done.returncode != 0:
            raise StageFailed(f"relevo status on {node}: {done.stderr.decode(errors='replace').strip()}")
        return dict(msgspec.json.decode(done.stdout))

    def await_status(
        self, what: str, node: str, wanted: Callable[[Status], bool], *, limit_s: float = STAGE_LIMIT_S
    ) -> Status:
        """Follow the cluster's status on a node until it is as wanted.

        Raises:
            StageFailed: it is not, within the time limit; the sentence names `what`.
        """
        end = time.monotonic() + limit_s
        last: Status = {}
        while time.monotonic() < end:
            command = ["relevo", "status", "--watch", "--json"]
            process = self._lab.popen(node, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            watchdog = threading.Timer(max(0.1, end - time.monotonic()), process.kill)
            watchdog.start()
            assert process.stdout is not None
            try:
                for last in _documents(process.stdout):
                    if wanted(last):
                        return last
            finally:
                watchdog.cancel()
                process.kill()
                process.wait()
                process.stdout.close()
            # The node daemon is being started (again): there is nothing to wait for but its socket.
            time.sleep(0.1)
        raise StageFailed(f"{what} did not happen within {limit_s:.0f} s; last seen on {node}: {_brief(last)}")

    def await_service_on(self, node: str, *, seen_from: str | None = None, limit_s: float = STAGE_LIMIT_S) -> Status:
        """Until the service runs on a node and both copies are current."""
        return self.await_status(
            f"{SERVICE} on {node} with two copies",
            seen_from or node,
            lambda state: state["services"][SERVICE]["node"] == node and both_current(state),
            limit_s=limit_s,
        )

    def await_service_away_from(self, node: str, *, limit_s: float = STAGE_LIMIT_S) -> Status:
        """Until the service runs on the other node, as that one sees it."""
        other = other_than(node)
        return self.await_status(
            f"{SERVICE} on {other}",
            other,
            lambda state: state["services"][SERVICE]["node"] == other,
            limit_s=limit_s,
        )

    def await_both_current(self, node: str, *, limit_s: float = STAGE_LIMIT_S) -> Status:
        """Until both copies are current and connected, as one node sees it."""
        return self.await_status("Two current copies", node, both_current, limit_s=limit_s)

    def stop_service(self) -> Status:
        """Put both nodes in standby, in order, and wait until the service is stopped and both copies are equal."""
        for node in ("nodo2", "nodo1"):
            self._lab.run("nodo1", ["relevo", "standby", node, "--stop"], check=True, capture=True)
        return self.await_status("The orderly stop", "nodo1", lambda state: all_stopped(state) and both_current(state))


def other_than(node: str) -> str:
    """The other one of the two servers."""
    return "nodo2" if node == "nodo1" else "nodo1"


def both_current(state: Status) -> bool:
    """Both sides of the mirror are connected and up to date."""
    sides = state["mirrors"][MIRROR]
    return len(sides) == 2 and all(
        side["disk"] == "UpToDate" and side["connection"] == "Connected" for side in sides.values()
    )


def all_stopped(state: Status) -> bool:
    """The service runs nowhere."""
    return set(state["services"][SERVICE]["states"].values()) == {"stopped"}


def _documents(stream: IO[bytes]) -> Iterator[Status]:
    """The JSON documents of `relevo status --watch --json`: each begins at a line that is `{` and ends at `}`."""
    lines: list[bytes] = []
    for line in stream:
        lines.append(line)
        if line.rstrip() == b"}":
            yield msgspec.json.decode(b"".join(lines))
            lines = []


def _brief(state: Status) -> str:
    if not state:
        return "no answer"
    sides = {
        node: f"{side['role']} {side['connection']} {side['disk']}" for node, side in state["mirrors"][MIRROR].items()
    }
    service = state["services"][SERVICE]
    return f"{service['states']} ({service['reason']}) {sides} {state['alarms']}"
