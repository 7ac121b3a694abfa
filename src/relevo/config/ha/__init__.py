"""Heartbeat's own files, read as they stand: ha.cf and haresources (authkeys: `relevo.config.authkeys`)."""
