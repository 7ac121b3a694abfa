"""The scene: which machines a lab has, their addresses, and the configuration that is written for them."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import secrets
from typing import Any, Literal

import msgspec

from relevo.base.errors import RelevoError
from relevo.base.units import format_duration_ms, parse_duration_ms

SERVERS = ("nodo1", "nodo2")
CLIENT = "client"
MACHINES = (*SERVERS, CLIENT)
ADDRESSES = {
    "nodo1": {"eth0": "192.168.0.27/24", "eth1": "10.27.0.1/24"},
    "nodo2": {"eth0": "192.168.0.28/24", "eth1": "10.27.0.2/24"},
    CLIENT: {"eth0": "192.168.0.30/24"},
}
"""Machine -> network card -> its address."""
BRIDGES = {"eth0": "users", "eth1": "cross"}
"""Network card -> the bridge that it is plugged into."""
VIRTUAL_IP = "192.168.0.29"
URL = f"http://{VIRTUAL_IP}/"
MIRROR = "r0"
DISK_PATH = f"/dev/relevo/{MIRROR}"
"""Where a server finds its disk."""
SWITCHES = "/run/power"
"""Where every server finds the power switches of all of them."""
WATCHDOG = "/dev/watchdog"
"""Where a server finds its watchdog, if it has one."""
FENCE_AGENT = pathlib.Path(__file__).with_name("fence_lab")
DEFAULT_DIR = pathlib.Path("/var/lib/relevo/lab")
EXPOSED_PORT = 8029
SECRET_BYTES = 24


class NoSuchMachine(RelevoError):
    """A lab has no machine of that name."""


def check_machine(name: str, *, server: bool = False) -> None:
    """Refuse a name that is none of the lab's.

    Raises:
        NoSuchMachine: also for the client when only a server will do.
    """
    known = SERVERS if server else MACHINES
    if name not in known:
        raise NoSuchMachine(f"There is no {name!r} in the lab that this can be done to.", f"Name {', '.join(known)}.")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What can be chosen when a lab is made.

    Attributes:
        disk: `testdisk` forgets what was not flushed when the power is cut; `plain` is the bare file, for measurements.
        disk_bytes: size of each server's disk.
        profile: the cluster's profile (`fast`), or none.
        heartbeat: entries of the `[heartbeat]` table, which override the profile.
        mirror: further entries of the `[mirrors.r0]` table.
        alone: what a Primary that lost its peer does: `risk` or `ask`.
        witness: the client machine is the third vote as well; with `alone = "ask"`.
        watchdog: a server whose node daemon stands still for so long (a duration) has its power cut; empty: none has.
        fencing: each server can cut the other one's power; with `alone = "ask"`.
        auto_failback: whether the service returns to nodo1.
        seed: of what the disks forget.
        further: more text of relevo.toml.
        programs: machine -> the virtual environment whose `relevo` it runs instead of this one, from its next boot on.
    """

    disk: Literal["testdisk", "plain"] = "testdisk"
    disk_bytes: int = 512 << 20
    profile: str | None = None
    heartbeat: dict[str, str] = msgspec.field(
        default_factory=lambda: {"keepalive": "200 ms", "warntime": "1 s", "deadtime": "2 s", "initdead": "10 s"}
    )
    mirror: dict[str, str | int] = {}
    alone: Literal["risk", "ask"] = "risk"
    witness: bool = False
    watchdog: str = ""
    fencing: bool = False
    auto_failback: bool = True
    seed: int = 1
    further: str = ""
    programs: dict[str, str] = {}


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that a machine's PID 1 keeps running.

    Attributes:
        name: how commands and the log call it.
        argv: its command line.
        stop_limit_ms: how long it may take to end before it is killed.
        goodbye: a command to run at an orderly power-off while it still runs, before anything is stopped.
        goodbye_limit_ms: how long that may take.
    """

    name: str
    argv: tuple[str, ...]
    stop_limit_ms: int = 10_000
    goodbye: tuple[str, ...] = ()
    goodbye_limit_ms: int = 40_000


SERVICE_UNITS = (
    Unit(name="mirror", argv=("relevo", "mirror", "run", MIRROR)),
    Unit(name="heartbeat", argv=("relevo", "heartbeat", "run")),
    Unit(name="files", argv=("relevo", "files", "run", "files")),
    Unit(name="node", argv=("relevo", "node", "run"), goodbye=("relevo", "leave")),
)
"""What a server runs, in the order of starting; they are stopped in reverse."""
WITNESS_UNIT = Unit(name="witness", argv=("relevo", "witness", "run"))


def mac_address(lab: str, machine: str, card: str) -> str:
    """The hardware address of a network card: the same at every boot, different in every lab."""
    digest = hashlib.sha256(f"{lab}/{machine}/{card}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _table(entries: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in entries.items())


def _value(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else f'"{value}"'


def cluster_name(lab: str) -> str:
    """The cluster of a lab; its loop devices are named after it, so no two labs may share one."""
    return f"oficina-{lab}" if lab else "oficina"


def configuration(options: Options, lab: str = "") -> str:
    """The text of relevo.toml, the same on both servers."""
    cluster: dict[str, Any] = {"name": cluster_name(lab), "secrets": "secrets.toml", "authkeys": "authkeys"}
    if options.profile is not None:
        cluster["profile"] = options.profile
    alone = "ask" if options.witness or options.fencing else options.alone
    mirror = {"link": "cross", "port": 7788, "alone": alone, "verify_alg": "crc32c", **options.mirror}
    watchdog = f'[watchdog]\ndevice = "{WATCHDOG}"\ntimeout = "{options.watchdog}"\n\n' if options.watchdog else ""
    witness = f'[witness]\naddress = "{_plain(CLIENT, "eth0")}"\n\n' if options.witness else ""
    service = {"prefer": "nodo1", "auto_failback": options.auto_failback}
    nodes = "".join(_node(name) + (_fence_device(name) if options.fencing else "") for name in SERVERS)
    return (
        f"[cluster]\n{_table(cluster)}\n[heartbeat]\n{_table(options.heartbeat)}\n{_LINKS}\n{nodes}"
        f"{watchdog}{witness}[mirrors.{MIRROR}]\n{_table(mirror)}\n[services.web]\n{_table(service)}\n{_RESOURCES}{options.further}"
    )


def _plain(machine: str, card: str) -> str:
    return ADDRESSES[machine][card].partition("/")[0]


def _node(name: str) -> str:
    users, cross = (_plain(name, card) for card in ("eth0", "eth1"))
    return (
        f'[nodes.{name}]\naddresses = {{ users = "{users}", cross = "{cross}" }}\n'
        f'disks = {{ {MIRROR} = "{DISK_PATH}" }}\n\n'
    )


def _fence_device(name: str) -> str:
    parameters = f'plug = "{name}", switches = "{SWITCHES}"'
    return f'[[nodes.{name}.fencing]]\nagent = "{FENCE_AGENT}"\naction = "off"\nparameters = {{ {parameters} }}\n\n'


_LINKS = """\
[links.users]
interface = "eth0"
network = "192.168.0.0/24"

[links.cross]
interface = "eth1"
network = "10.27.0.0/24"
"""
_RESOURCES = f"""\
[[services.web.resources]]
type = "mirror"
mirror = "{MIRROR}"

[[services.web.resources]]
type = "filesystem"
mirror = "{MIRROR}"
mountpoint = "/srv/relevo"

[[services.web.resources]]
type = "files"
root = "/srv/relevo"
mirror = "{MIRROR}"

[[services.web.resources]]
type = "address"
address = "{VIRTUAL_IP}/24"
link = "users"
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Secrets:
    """The two secret files of the servers, made once for a lab and the same on both, and the witness's."""

    secrets_toml: str
    authkeys: str
    witness_toml: str


def new_secrets(lab: str = "", *, witness: bool = False) -> Secrets:
    """Fresh random secrets."""
    mirror, heartbeat, key = (secrets.token_hex(SECRET_BYTES) for _ in range(3))
    told = f'\n[witness]\nkey = "{key}"\n' if witness else ""
    return Secrets(
        secrets_toml=f'[mirror]\n{MIRROR} = "{mirror}"\n{told}',
        authkeys=f"auth 1\n1 sha1 {heartbeat}\n",
        witness_toml=f'[clusters]\n{cluster_name(lab)} = "{key}"\n',
    )


def boot_limit_s(options: Options) -> float:
    """How long a lab may take from power-on until it serves: both initdead and a good margin for a busy machine."""
    initdead_ms = parse_duration_ms(options.heartbeat.get("initdead", format_duration_ms(10_000)))
    return 60.0 + 2 * initdead_ms / 1000
