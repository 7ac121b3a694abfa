"""Our mirror in the guest (as nodo2), and its peer, ours too, outside (as nodo1)."""

from __future__ import annotations

from rig import HIGH, KERNEL_NAME, LOW, OURS_NAME, Rig

from mirror_pair import Side, in_sync

START_LIMIT_S = 120.0
PLACES = f"--etc /tmp/etc --state /tmp/state --run /run --node {KERNEL_NAME}"
CLUSTER = "inside"
FILES = {"secrets.toml": '[mirror]\nr0 = "open sesame"\n', "authkeys": "auth 1\n1 sha1 key\n"}


def python(more: str = "") -> str:
    """The command that runs Python in the guest, perhaps with a folder before its path."""
    return f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={more} /py/bin/python3"


def relevo(words: str, more: str = "") -> str:
    """The command that runs `relevo mirror` in the guest."""
    return f"{python(more)} -m relevo {PLACES} mirror {words}"


class OursInside:
    """Both sides; nothing runs yet, the disks have no meta-data.

    Args:
        rig: whose guest has this Python as its second disk.
        disk: path of the backing disk in the guest.
        mirror: further lines of the mirror's section.
    """

    def __init__(self, rig: Rig, disk: str, mirror: str) -> None:
        self.rig = rig
        self.guest = rig.guest
        rig.begin(ours_is_lower=True)
        self.guest.run(
            "mkdir -p /py /mnt /tmp/etc /tmp/state /lib/x86_64-linux-gnu && mount -o ro /dev/vdb /py && cd /py/lib &&"
            " for name in *.so*; do ln -sf /py/lib/$name /lib/x86_64-linux-gnu/$name; done",
            limit_s=60,
        )
        self.peer = Side(rig.folder, OURS_NAME, rig.ours)
        self._configure(disk, mirror)

    def _configure(self, disk: str, mirror: str) -> None:
        disks = {OURS_NAME: str(self.peer.disk), KERNEL_NAME: disk}
        nodes = "".join(
            f'[nodes.{name}]\naddresses = {{ cross = "{address}" }}\ndisks = {{ r0 = "{disks[name]}" }}\n'
            for name, address in ((OURS_NAME, LOW), (KERNEL_NAME, HIGH))
        )
        config = (
            f'[cluster]\nname = "{CLUSTER}"\nsecrets = "secrets.toml"\nauthkeys = "authkeys"\n'
            '[links.cross]\ninterface = "eth1"\nnetwork = "10.27.0.0/24"\n'
            f'{nodes}[mirrors.r0]\nlink = "cross"\nalone = "risk"\n{mirror}\n'
        )
        script = ""
        for name, content in {"relevo.toml": config, **FILES}.items():
            path = self.peer.paths.etc / name
            path.touch(mode=0o600)
            path.write_text(content)
            script += f"cat > /tmp/etc/{name} <<'END'\n{content}END\nchmod 600 /tmp/etc/{name}\n"
        self.guest.run(script)

    def ask(self, words: str, *, limit_s: float = START_LIMIT_S) -> str:
        """Run `relevo mirror` in the guest; what it printed."""
        return self.guest.run(relevo(words), limit_s=limit_s)

    def start_inside(self, more: str = "") -> None:
        """Start the guest's daemon; does not wait for it."""
        self.guest.run(f"({relevo('run r0', more)} >> /tmp/mirror.log 2>&1 &)")

    def wait_in_sync(self) -> None:
        """Until both are connected, with both copies up to date."""
        try:
            self.peer.wait_for(in_sync, "a connection with the guest", START_LIMIT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.guest.run('cat /tmp/mirror.log')}") from error

    def close(self) -> None:
        """Take it down, in whatever state it is."""
        if self.peer.process is not None:
            self.peer.kill()
        self.rig.close()
