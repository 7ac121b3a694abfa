"""The bitmaps at the beginning of a resync: each side tells which blocks it marked, and takes in what the other says.

A bitmap goes out in portions, so that one of a large device neither fills the memory nor stops everything else.
"""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.state import SECTOR_BYTES, Shared, Timer
from relevo.mirror.states import Connection
from relevo.mirror.vli import BitmapReceiver, BitmapSender

PORTION_PACKETS = 256
"""What goes out at a time: at most 1 MiB."""
PORTION_MS = 1
"""The pause between two portions, in which packets and completions get their turn."""


class BitmapExchange:
    """One exchange after the other."""

    def __init__(self, shared: Shared) -> None:
        self._s = shared
        self._receiver = BitmapReceiver(shared.bitmap)
        self._sender: BitmapSender | None = None
        self._sent: Callable[[], None] = _nothing

    def begin(self) -> None:
        """A bitmap of the peer's is going to come."""
        self._receiver = BitmapReceiver(self._s.bitmap)

    @property
    def received(self) -> bool:
        """The peer's bitmap is here as a whole."""
        return self._receiver.done

    def take(self, packet: p.BitmapWords | p.CompressedBitmap) -> bool:
        """A part of the peer's bitmap; True: it was the last one.

        Raises:
            ProtocolError: too much of it.
        """
        if self._receiver.done:
            raise p.ProtocolError("The peer sent a bitmap that was not expected.")
        return self._receiver.take(packet)

    def send(self, then: Callable[[], None]) -> None:
        """Send this side's; goes on when all of it is on its way."""
        self._sender = BitmapSender(self._s.bitmap, compress=self._s.settings.options.use_rle)
        self._sent = then
        self.portion()

    def portion(self) -> None:
        """Send the next portion."""
        sender = self._sender
        if sender is None:
            return
        for _ in range(PORTION_PACKETS):
            packet = sender.next_packet()
            if packet is None:
                self._sender = None
                self._sent()
                return
            self._s.out.append(e.SendData(packet))
        self._s.set_timer(Timer.BITMAP, PORTION_MS)

    def out_of_sync(self, packet: p.OutOfSync) -> None:
        """The source changed blocks that it did not send.

        Raises:
            ProtocolError: not now, or outside of the device.
        """
        s = self._s
        if s.conn not in {Connection.WF_BITMAP_T, Connection.WF_SYNC_UUID, Connection.BEHIND}:
            raise p.ProtocolError("The peer sent OUT_OF_SYNC, but it is neither ahead nor about to be a source.")
        first = packet.sector * SECTOR_BYTES // BLOCK_BYTES
        end = -(-(packet.sector * SECTOR_BYTES + packet.size_bytes) // BLOCK_BYTES)
        if not 0 <= first <= end <= s.bitmap.bits:
            raise p.ProtocolError("The peer marks blocks outside of the device.")
        s.bitmap.set_range(first, end)

    def link_lost(self) -> None:
        """Nothing more goes out."""
        self._sender = None
        self._s.clear_timer(Timer.BITMAP)


def _nothing() -> None:
    """Nothing has to follow."""
