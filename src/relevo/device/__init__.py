"""A block device served by a process of ours: a FUSE file under a loop device, and asynchronous I/O to the disk below.

It must never know who serves or why (no mirror, no peer, no role), nor hold a descriptor on the device it serves.
Open `frontend.py` first, then `fuse.py`, `aio.py` and `keeper.py`; docs/internals/device.md is the specification.
"""
