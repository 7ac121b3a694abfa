"""The third vote: a small server on any third machine that knows whose copy is the newest, and who leads.

It must never decide anything itself: `arbiter/register.py` does, this is the shell around it. Open `daemon.py` first.
"""
