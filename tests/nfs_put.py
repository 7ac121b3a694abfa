"""`python nfs_put.py FILE URL`: store a file over NFS with libnfs, flushed before it is closed; status 1 on any error.

Debian 12's own nfs-cp cannot: its library encodes at most 2 KiB in a WRITE of version 4, and it writes more at once.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import sys

CHUNK_BYTES = 2000
MODE = 0o644


class _Url(ctypes.Structure):
    _fields_ = (("server", ctypes.c_char_p), ("path", ctypes.c_char_p), ("file", ctypes.c_char_p))


def main(source: str, url: str) -> None:
    lib = ctypes.CDLL("libnfs.so.13")
    lib.nfs_init_context.restype = ctypes.c_void_p
    lib.nfs_parse_url_full.restype = ctypes.POINTER(_Url)
    lib.nfs_get_error.restype = ctypes.c_char_p
    nfs = ctypes.c_void_p(lib.nfs_init_context())

    def must(status: int) -> None:
        if status < 0:
            sys.exit(f"{source}: {lib.nfs_get_error(nfs).decode()}")

    parts = lib.nfs_parse_url_full(nfs, url.encode()).contents
    must(lib.nfs_mount(nfs, parts.server, parts.path))
    handle = ctypes.c_void_p()
    must(lib.nfs_creat(nfs, parts.file, MODE, ctypes.byref(handle)))
    must(lib.nfs_close(nfs, handle))
    must(lib.nfs_open(nfs, parts.file, os.O_WRONLY, ctypes.byref(handle)))
    data = pathlib.Path(source).read_bytes()
    for begin in range(0, len(data), CHUNK_BYTES):
        piece = data[begin : begin + CHUNK_BYTES]
        must(lib.nfs_pwrite(nfs, handle, ctypes.c_uint64(begin), ctypes.c_uint64(len(piece)), piece))
    must(lib.nfs_fsync(nfs, handle))
    must(lib.nfs_close(nfs, handle))


if __name__ == "__main__":
    main(*sys.argv[1:])
