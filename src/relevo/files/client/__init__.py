"""The other end: stores and fetches files, goes on by itself through a failover, and verifies a checksum at the end.

It must never know how the service works inside: it speaks HTTP and tus like any other client and shares only addresses,
digests and limits with it. Open `put.py` and `get.py` first, then `patience.py`, which decides when to try again.
"""

from relevo.files.client.errors import ChecksumDiffers, GaveUp, ServerRefused, TransferFailed
from relevo.files.client.get import get_file
from relevo.files.client.put import put_file
from relevo.files.client.report import Fetched, Observer, Stored, TreeReport
from relevo.files.client.tree import put_tree

__all__ = [
    "ChecksumDiffers",
    "Fetched",
    "GaveUp",
    "Observer",
    "ServerRefused",
    "Stored",
    "TransferFailed",
    "TreeReport",
    "get_file",
    "put_file",
    "put_tree",
]
