"""The file service: people and programs list, download and upload files over HTTP, and an answer 201 is a promise.

It must never know who is alive, who may act or how blocks are copied: it is told `open`, `quiesce` and `close`, and
asks the mirror for one number, how many copies there are. Open `service.py` first, then `volume.py`, where
every system call on the volume is made.
"""
