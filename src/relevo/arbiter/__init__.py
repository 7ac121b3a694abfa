"""Who may act: from what is known about the peers and the mirrors to the permission to become Primary, or its refusal.

It must never know how to start anything, nor a clock, socket or file: events in, effects out. Open `arbiter.py` first:
its rules are promises 1 to 3 of ARCHITECTURE.md.
"""
