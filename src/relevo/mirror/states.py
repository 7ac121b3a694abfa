"""Roles, disk states and connection states of a mirror, and the 32-bit word in which P_STATE carries them.

Numbers are those of DRBD 8.4 (`union drbd_state`): role bits 0-1, peer 2-3, conn 4-8, disk 9-12, pdsk 13-16, susp 17,
aftr_isp 18, peer_isp 19, user_isp 20, susp_nod 21, susp_fen 22; the rest is zero.
"""

from __future__ import annotations

import enum

import msgspec


class Role(enum.IntEnum):
    """Who may write."""

    UNKNOWN = 0
    PRIMARY = 1
    SECONDARY = 2


class Disk(enum.IntEnum):
    """What a copy is worth."""

    DISKLESS = 0
    ATTACHING = 1
    FAILED = 2
    NEGOTIATING = 3
    INCONSISTENT = 4
    OUTDATED = 5
    UNKNOWN = 6
    CONSISTENT = 7
    UP_TO_DATE = 8


class Connection(enum.IntEnum):
    """Where the conversation with the peer stands."""

    STANDALONE = 0
    DISCONNECTING = 1
    UNCONNECTED = 2
    TIMEOUT = 3
    BROKEN_PIPE = 4
    NETWORK_FAILURE = 5
    PROTOCOL_ERROR = 6
    TEAR_DOWN = 7
    WF_CONNECTION = 8
    WF_REPORT_PARAMS = 9
    CONNECTED = 10
    STARTING_SYNC_S = 11
    STARTING_SYNC_T = 12
    WF_BITMAP_S = 13
    WF_BITMAP_T = 14
    WF_SYNC_UUID = 15
    SYNC_SOURCE = 16
    SYNC_TARGET = 17
    VERIFY_S = 18
    VERIFY_T = 19
    PAUSED_SYNC_S = 20
    PAUSED_SYNC_T = 21
    AHEAD = 22
    BEHIND = 23


ROLE_NAMES = {Role.UNKNOWN: "Unknown", Role.PRIMARY: "Primary", Role.SECONDARY: "Secondary"}
DISK_NAMES = {
    Disk.DISKLESS: "Diskless",
    Disk.ATTACHING: "Attaching",
    Disk.FAILED: "Failed",
    Disk.NEGOTIATING: "Negotiating",
    Disk.INCONSISTENT: "Inconsistent",
    Disk.OUTDATED: "Outdated",
    Disk.UNKNOWN: "DUnknown",
    Disk.CONSISTENT: "Consistent",
    Disk.UP_TO_DATE: "UpToDate",
}
CONNECTION_NAMES = {
    Connection.STANDALONE: "StandAlone",
    Connection.DISCONNECTING: "Disconnecting",
    Connection.UNCONNECTED: "Unconnected",
    Connection.TIMEOUT: "Timeout",
    Connection.BROKEN_PIPE: "BrokenPipe",
    Connection.NETWORK_FAILURE: "NetworkFailure",
    Connection.PROTOCOL_ERROR: "ProtocolError",
    Connection.TEAR_DOWN: "TearDown",
    Connection.WF_CONNECTION: "WFConnection",
    Connection.WF_REPORT_PARAMS: "WFReportParams",
    Connection.CONNECTED: "Connected",
    Connection.STARTING_SYNC_S: "StartingSyncS",
    Connection.STARTING_SYNC_T: "StartingSyncT",
    Connection.WF_BITMAP_S: "WFBitMapS",
    Connection.WF_BITMAP_T: "WFBitMapT",
    Connection.WF_SYNC_UUID: "WFSyncUUID",
    Connection.SYNC_SOURCE: "SyncSource",
    Connection.SYNC_TARGET: "SyncTarget",
    Connection.VERIFY_S: "VerifyS",
    Connection.VERIFY_T: "VerifyT",
    Connection.PAUSED_SYNC_S: "PausedSyncS",
    Connection.PAUSED_SYNC_T: "PausedSyncT",
    Connection.AHEAD: "Ahead",
    Connection.BEHIND: "Behind",
}
"""The names that `drbdadm` shows."""

_FIRST_FLAG_BIT = 17
_WORD_BITS = 23


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One side's whole view, as P_STATE carries it: its own role and disk, and what it believes of the peer."""

    role: Role = Role.SECONDARY
    peer: Role = Role.UNKNOWN
    conn: Connection = Connection.WF_REPORT_PARAMS
    disk: Disk = Disk.DISKLESS
    pdsk: Disk = Disk.UNKNOWN
    susp: bool = False
    aftr_isp: bool = False
    peer_isp: bool = False
    user_isp: bool = False
    susp_nod: bool = False
    susp_fen: bool = False

    def pack(self) -> int:
        """The word of P_STATE."""
        word = self.role | self.peer << 2 | self.conn << 4 | self.disk << 9 | self.pdsk << 13
        flags = (self.susp, self.aftr_isp, self.peer_isp, self.user_isp, self.susp_nod, self.susp_fen)
        for bit, flag in enumerate(flags, _FIRST_FLAG_BIT):
            word |= flag << bit
        return word

    @classmethod
    def unpack(cls, word: int) -> State:
        """The state in a word of P_STATE.

        Raises:
            ValueError: a number in it names no state, or bits beyond the known ones are set.
        """
        if word >> _WORD_BITS:
            raise ValueError(f"unknown bits are set in the state {word:#x}")
        bits = [bool(word >> bit & 1) for bit in range(_FIRST_FLAG_BIT, _WORD_BITS)]
        return cls(
            role=Role(word & 3),
            peer=Role(word >> 2 & 3),
            conn=Connection(word >> 4 & 31),
            disk=Disk(word >> 9 & 15),
            pdsk=Disk(word >> 13 & 15),
            susp=bits[0],
            aftr_isp=bits[1],
            peer_isp=bits[2],
            user_isp=bits[3],
            susp_nod=bits[4],
            susp_fen=bits[5],
        )


ROLE_MASK = 0x3
"""Bits of `role` in a state change request."""
CONN_MASK = 0x1F << 4
"""Bits of `conn` in a state change request."""
DISK_SHIFT = 9
DISK_MASK = 0xF << DISK_SHIFT
"""Bits of `disk` in a state change request."""
