"""Executables that answer to names of other programs: `drbdadm`, and Heartbeat's `drbddisk`.

The files beside this one are templates; `relevo mirror shims` fills in where Relevo is and writes them.
"""

MARK = "part of Relevo"
"""What tells a file of ours from another program of the same name."""
