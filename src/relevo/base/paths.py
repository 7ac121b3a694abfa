"""Where things lie on a server. Decided once, at the edge, and handed down."""

from __future__ import annotations

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True, slots=True)
class Paths:
    """The folders of a server, and the one file outside of them.

    Attributes:
        etc: the configuration (`relevo.toml`, the secrets, `authkeys`).
        state: what must survive a power cut (generations, sequence numbers, the cluster record).
        run: what lives as long as the server runs (control sockets, device files).
        drbd: the file that configures mirrors where there is no `relevo.toml`.
    """

    etc: pathlib.Path = pathlib.Path("/etc/relevo")
    state: pathlib.Path = pathlib.Path("/var/lib/relevo")
    run: pathlib.Path = pathlib.Path("/run/relevo")
    drbd: pathlib.Path = pathlib.Path("/etc/drbd.conf")

    @property
    def config(self) -> pathlib.Path:
        """The configuration file."""
        return self.etc / "relevo.toml"

    def socket(self, daemon: str) -> pathlib.Path:
        """The control socket of a daemon: `heartbeat`, `node`, `mirror-NAME` or `files-NAME`."""
        return self.run / f"{daemon}.sock"

    def device_folder(self, mirror: str) -> pathlib.Path:
        """Where the device of a mirror appears while it is Primary."""
        return self.run / "mirror" / mirror
