"""The `relevo` command: it reads options, calls one thing below, and prints the result for people or as JSON.

It must never decide anything itself. Open `main.py` first: every command is mounted there.
"""
