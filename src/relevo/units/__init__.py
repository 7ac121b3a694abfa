"""Unit files for systemd: what keeps the daemons of a server running, in which order they start and end.

The files beside this one are templates; `relevo units install` fills in where Relevo is and writes them. Each says why
it has the settings that it has. The lab's PID 1 (`lab/scene.py`) keeps to the same order.
"""

MARK = "part of Relevo"
"""What tells a file of ours from another one of the same name."""
TARGET = "relevo.target"
SERVICES = ("relevo-heartbeat.service", "relevo-node.service", "relevo-leave.service")
"""One of each on every server of a cluster."""
MIRROR = "relevo-mirror@.service"
FILES = "relevo-files@.service"
WITNESS = "relevo-witness.service"
"""On the third machine."""
ALL = (TARGET, *SERVICES, MIRROR, FILES, WITNESS)


def instance(template: str, name: str) -> str:
    """The unit that a template is for one mirror, or one file service."""
    return template.replace("@.", f"@{name}.")
