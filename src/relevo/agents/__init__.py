"""How one resource is started, stopped and monitored on this server: address, mirror, file system, file service.

It must never know why: which node may run what, and in which order, is decided above. Open `base.py` first: the small
interface that every agent fulfils.
"""
