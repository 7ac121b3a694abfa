"""The cluster as written down: `relevo.toml` and its secrets, read once and checked at the edge into frozen types.

It must never know how anything is carried out. Open `model.py` first: everything else produces it.
"""
