"""drbd.conf as drbdadm 8.4 takes it: read, resolved and printed.

`load.read` gives the tree of a file and of what it includes; `resolve.expand` lets resources inherit; `site.site_of`
makes of a resource what a mirror's process needs. Nothing in here opens a device or asks the system who it is. Open
`options.py` first: every option that is known. The grammar as a specification: docs/internals/drbd-conf.md.
"""
