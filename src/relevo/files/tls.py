"""TLS of the file service: which certificate new connections get. Those that are there go on with theirs.

Given files are looked at every few seconds and taken when they changed and are right; else the old pair stays, and the
status says why. Without given files one is made (`selfmade.py`) and kept on the volume, so that both servers show the
same; the server without the volume then has none, and refuses handshakes: nobody is led to it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
from typing import Any

import structlog

from relevo.config.certificates import CertificateWrong, Pair, read
from relevo.config.model import FilesTls

LOOK_S = 10.0
"""So often the given files are looked at."""
_log = structlog.get_logger()


class Ports(ssl.SSLContext):
    """What the listening port has: it chooses the certificate at each handshake.

    Attributes:
        lasting: browsers may be told to insist on TLS from now on (HSTS): with a given certificate only, for one that
            we made has to be waved through, which HSTS forbids.
    """

    lasting = False


def _context(kind: type[ssl.SSLContext]) -> Any:
    made = kind(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    return made


def serving(pair: Pair) -> ssl.SSLContext:
    """A context that serves with a certificate.

    Raises:
        CertificateWrong: OpenSSL does not take it.
    """
    made: ssl.SSLContext = _context(ssl.SSLContext)
    memory = os.memfd_create("tls", os.MFD_CLOEXEC)  # OpenSSL reads files only; a key does not belong into /tmp
    try:
        os.write(memory, pair.key + b"\n" + pair.chain)
        made.load_cert_chain(f"/proc/self/fd/{memory}")
    except (ssl.SSLError, OSError) as error:
        raise CertificateWrong(f"OpenSSL does not take the certificate ({error}).", "Give another one.") from error
    finally:
        os.close(memory)
    return made


class Tls:
    """The certificate that is shown now.

    Args:
        wanted: from the configuration.
    """

    def __init__(self, wanted: FilesTls) -> None:
        self.wanted = wanted
        self.ports: Ports = _context(Ports)
        self.ports.lasting = wanted.given
        self.ports.sni_callback = self._choose
        self.pair: Pair | None = None
        self.problem = ""
        self._serving: ssl.SSLContext | None = None
        self._seen: tuple[tuple[int, int, int], ...] | None = None

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _ports: ssl.SSLContext
    ) -> int | None:
        """Called at each handshake, whether or not the client says a name."""
        if self._serving is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._serving
        return None

    def take(self, pair: Pair | None) -> None:
        """New connections get this certificate from now on; None: they are refused.

        Raises:
            CertificateWrong: OpenSSL does not take it; the old one stays.
        """
        self._serving = serving(pair) if pair is not None else None
        if pair is not None:
            _log.info("certificate", names=sorted(pair.names), ends=pair.ends.isoformat())
        self.pair = pair

    def look(self) -> None:
        """Read the given files if they have changed (in a thread); what is wrong with them is said in `problem`."""
        assert self.wanted.certificate is not None, "they are given"
        assert self.wanted.key is not None, "they are given"
        try:
            seen = tuple(_stamp(path.stat()) for path in (self.wanted.certificate, self.wanted.key))
        except OSError:
            seen = None  # `read` says it in words
        if seen is not None and seen == self._seen:
            return
        try:
            self.take(read(self.wanted.certificate, self.wanted.key))
        except CertificateWrong as error:
            if str(error) != self.problem:
                _log.error("certificate_refused", why=str(error))
            self.problem, self._seen = str(error), None  # perhaps only one of the two is written by now
            return
        self.problem, self._seen = "", seen

    async def watch(self) -> None:
        """Look at the given files again and again, until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_S)

    def told(self) -> dict[str, Any]:
        """Part of the status."""
        return {
            "given": self.wanted.given,
            "ends": self.pair.ends.astimezone(dt.UTC).isoformat() if self.pair is not None else None,
            "names": sorted(self.pair.names) if self.pair is not None else [],
            "problem": self.problem,
        }


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_mtime_ns, found.st_size
