"""`python -m bench [NAME…]`: run the measurements, one after the other."""

from __future__ import annotations

import sys

from bench import address, attach, failover, files, growth, mirror, resync

ALL = {
    "mirror": mirror.main,
    "growth": growth.main,
    "resync": resync.main,
    "attach": attach.main,
    "address": address.main,
    "failover": failover.main,
    "files": files.main,
}


def main() -> None:
    """Run those that are named, or all."""
    for name in sys.argv[1:] or ALL:
        ALL[name]()


if __name__ == "__main__":
    main()
