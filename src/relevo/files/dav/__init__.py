"""WebDAV, class 1 and 2 (RFC 4918), below /dav/: the same files for the file managers of Windows, macOS and Linux.

Only the protocol is here. What it does is done by the service's own operations (`changes.py`, `store.py`, `tree.py`),
with their guards, quotas and durability; locks and properties lie on the volume (`lock_store.py`, `properties.py`). It
must never touch a path by itself. Begin with `handler.py`; docs/adr/0009 says why it is not a library's.
"""
