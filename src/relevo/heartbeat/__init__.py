"""Who is alive: signed messages on every link, in the format of Heartbeat 3, become a membership.

It must never know what runs where or who may act: it reports silence and goodbyes, others decide what follows.
Towards an original Heartbeat it carries out the hand-over that the node daemon wishes (`handover.py`).
Open `membership.py` first (the pure core), then `wire.py` (the format) and `daemon.py` (the shell around both).
"""
