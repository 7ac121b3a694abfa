"""Two servers and a client on one machine, in namespaces, with power cuts, cut links and forgetful disks.

It must never know how the service is made: it starts the same daemons that systemd starts, and knows only their names,
their addresses and their status. Open `lab.py` first (what a lab can do), then `node.py` (one machine of it).
"""
