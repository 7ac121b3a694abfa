"""`relevo mirror run NAME`: the keeper, which makes the device and takes it away, and its worker."""

from __future__ import annotations

import sys

from relevo.base import sysrq
from relevo.base.memory import escape_oom_killer, lock_memory
from relevo.base.paths import Paths
from relevo.config.model import MirrorSite
from relevo.device.keeper import KEEPER_FD, Keeper

LOOP_NAME_BYTES = 63


def run(site: MirrorSite, paths: Paths) -> int:
    """Mirror until told to stop. Main thread only.

    Args:
        site: the mirror as this node has it; its worker reads the configuration again at each start.
        paths: where configuration, state and sockets lie.

    Returns:
        the exit status of the process.
    """
    name = site.mirror.name
    loop_name = f"relevo:{site.cluster}:{site.me}:{name}".encode()[:LOOP_NAME_BYTES].decode(errors="ignore")
    lock_memory()  # it ends what waits for memory that a device in use would have to free
    keeper = Keeper(
        loop_name,
        paths.device_folder(name),
        refusal=sysrq.refusal,
        alias=site.device,
        oom_score_adj=escape_oom_killer(),  # the device dies with it, wherever it holds that
    )
    places = [str(place) for place in (paths.etc, paths.state, paths.run, paths.drbd)]
    return keeper.run([sys.executable, "-m", "relevo.mirror.worker", site.me, name, *places, KEEPER_FD])
