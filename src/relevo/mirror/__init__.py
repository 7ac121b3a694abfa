"""The same blocks on two disks: synchronous replication of one block device in DRBD 8.4's wire and disk formats.

It must never know who may be Primary and why (arbiter), who is alive (heartbeat) or what runs on the device (manager):
it obeys the commands on its control socket. Open `events.py` first (what goes in and comes out), then `core.py`.
"""
