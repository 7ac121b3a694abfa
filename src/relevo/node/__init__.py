"""One daemon per server: it feeds what the heartbeats and the mirrors report to the arbiter and the manager, and acts.

It must never decide by itself: permission is the arbiter's, the plan the manager's. Open `daemon.py` first.
"""
