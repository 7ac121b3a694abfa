"""The mirror process: `python -m relevo.mirror.worker ME NAME ETC STATE RUN DRBD KEEPER_FD`, started by its keeper."""

from __future__ import annotations

import pathlib
import sys

import structlog

from relevo.base import log
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.site import find_site
from relevo.device.keeper_client import KeeperClient, KeeperGone
from relevo.mirror.process import become_resident
from relevo.mirror.shell import Worker

EX_CONFIG = 78
_log = structlog.get_logger()


def main(arguments: list[str]) -> int:
    """`ME NAME ETC STATE RUN DRBD KEEPER_FD`."""
    me, name, *places, keeper_fd = arguments
    log.set_up(f"mirror-{name}")
    paths = Paths(*map(pathlib.Path, places))
    try:
        site = find_site(paths, me, name)
    except RelevoError as error:
        _log.error("configuration_wrong", problem=str(error))
        return EX_CONFIG
    become_resident()
    try:
        Worker(site, paths, KeeperClient(int(keeper_fd))).run()
    except KeeperGone as error:
        _log.error("keeper_gone", problem=str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
