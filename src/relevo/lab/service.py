"""Bringing the service up in a lab, and saying in plain words what is missing when it does not come."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

from relevo.base.control import DaemonUnreachable, Refused, call
from relevo.lab.errors import CommandFailed, MachineOff, ServiceNotUp
from relevo.lab.process import wait_until
from relevo.lab.scene import CLIENT, MIRROR, SERVERS, URL

if TYPE_CHECKING:
    from relevo.lab.lab import Lab

CONNECT_LIMIT_S = 30.0
HTTP_LIMIT_S = 1
_STEP_S = 0.1
_ASK_LIMIT_S = 2.0


def found(lab: Lab) -> None:
    """Make the mirror's meta-data on both new disks, connect them, make the file system.

    No daemon but the mirrors runs meanwhile.

    Raises:
        CommandFailed: a step failed.
        ServiceNotUp: the mirrors do not find each other.
    """
    create = ("relevo", "mirror", "create", MIRROR, "--zeroed")
    creating = {name: lab.popen(name, create, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for name in SERVERS}
    for name, process in creating.items():
        said, _ = process.communicate()
        if process.returncode:
            raise CommandFailed(
                f"`{' '.join(create)}` failed in {name}: {said.decode(errors='replace').strip()}",
                lab.folder.order(f"logs {name}"),
            )
        lab.unit(name, "mirror", "start")
    if not wait_until(lambda: _connected(lab), CONNECT_LIMIT_S, _STEP_S):
        raise ServiceNotUp(f"The mirrors do not connect. {why(lab)}", lab.folder.order("logs nodo1"))
    lab.run(SERVERS[0], ["relevo", "volume", "format", MIRROR, "--yes"], check=True)


def mirror_status(lab: Lab, name: str) -> dict[str, Any] | None:
    """What a server's mirror says about itself; None when it does not answer."""
    try:
        return call(lab.path(name, f"run/relevo/mirror-{MIRROR}.sock"), "status", timeout_s=_ASK_LIMIT_S)
    except (DaemonUnreachable, Refused, MachineOff):
        return None


def _connected(lab: Lab) -> bool:
    return all((mirror_status(lab, name) or {}).get("connection") == "Connected" for name in SERVERS)


def _up_to_date(lab: Lab) -> bool:
    return all((mirror_status(lab, name) or {}).get("disk") == "UpToDate" for name in SERVERS)


def answer(lab: Lab) -> str:
    """What the client gets at the virtual IP: an HTTP status code, or curl's sentence about why there is none."""
    argv = ["curl", "--silent", "--show-error", "--max-time", str(HTTP_LIMIT_S), "--output", "/dev/null"]
    done = lab.run(CLIENT, [*argv, "--write-out", "%{http_code}", URL], capture=True)
    if done.returncode == 0:
        return done.stdout.decode()
    return done.stderr.decode(errors="replace").strip() or f"curl ended with status {done.returncode}"


def wait_until_up(lab: Lab, limit_s: float) -> None:
    """Wait until the service answers from the client and both disks are up to date.

    Raises:
        ServiceNotUp: not within the limit; the sentence says what is missing.
    """
    end_s = time.monotonic() + limit_s
    while not (_up_to_date(lab) and answer(lab) == "200"):
        if time.monotonic() >= end_s:
            logs = lab.folder.order("logs nodo1")
            raise ServiceNotUp(f"The service is not up after {limit_s:.0f} s. {why(lab)}", logs)
        time.sleep(_STEP_S)


def why(lab: Lab) -> str:
    """Sentences on everything that is not as it should be."""
    told = []
    for name in SERVERS:
        try:
            told += [sentence for unit in lab.units(name) if (sentence := _about_unit(lab, name, unit))]
        except (MachineOff, DaemonUnreachable):
            told.append(f"{name} is off.")
            continue
        status = mirror_status(lab, name)
        if status is None:
            told.append(f"The mirror of {name} does not answer.")
        elif status.get("disk") != "UpToDate" or status.get("connection") != "Connected":
            told.append(f"The disk of {name} is {status.get('disk')}, its connection {status.get('connection')}.")
            told += [str(status["problem"])] if status.get("problem") else []
    try:
        got = answer(lab)
    except MachineOff:
        got = "the client is off"
    if got != "200":
        told.append(f"{URL} from the client: {got}.")
    return " ".join(told)


def _about_unit(lab: Lab, name: str, unit: dict[str, Any]) -> str:
    if unit["state"] == "running" and not unit["restarts"]:
        return ""
    origin = f"{unit['name']}["
    said = [
        line.partition(": ")[2] for line in lab.logs(name).splitlines() if line.partition(" ")[2].startswith(origin)
    ]
    words = [text.strip(" │") for text in said if any(letter.isalnum() for letter in text)]  # a frame says nothing
    last = f", last said: {words[-1]}" if words else ""
    ended = f", ended with {unit['last_exit']}" if unit["last_exit"] else ""
    return f"{name}: {unit['name']} is {unit['state']} ({unit['restarts']} restarts{ended}{last})."
