"""What all trades share: units, errors, paths, logging set-up and the messages on control sockets.

It must never know a trade (heartbeat, arbiter, manager, mirror, files). Open `errors.py` first, then `control.py`.
"""
