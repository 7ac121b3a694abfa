"""One heartbeat daemon for the lab tests: `python heartbeat_node.py NODE FOLDER KEY`."""

from __future__ import annotations

import asyncio
import pathlib
import sys

from heartbeat_support import two_nodes
from relevo.base import log
from relevo.base.paths import Paths
from relevo.heartbeat import daemon

if __name__ == "__main__":
    node, folder, key_text = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    log.set_up("heartbeat")
    paths = Paths(etc=folder / "etc", state=folder / "state", run=folder / "run")
    asyncio.run(daemon.run(two_nodes(key_text=key_text), node, paths))
