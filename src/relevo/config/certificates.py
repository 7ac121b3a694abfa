"""A TLS certificate and its key, as files: do they belong together, until when do they hold, for which names.

Read by whoever serves with them, by `relevo check`, and by the node daemon, which tells people before they expire.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from relevo.base.errors import RelevoError

WARN_DAYS = 21
"""A given certificate that holds no longer than this is warned of."""
MAX_BYTES = 1 << 20


class CertificateWrong(RelevoError):
    """What is given as certificate and key cannot serve."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its key.

    Attributes:
        chain, key: PEM.
        names: DNS names and addresses that it is for.
        begins, ends: when it holds.
    """

    chain: bytes
    key: bytes
    names: frozenset[str]
    begins: dt.datetime
    ends: dt.datetime

    def left(self, now: dt.datetime) -> dt.timedelta:
        """How long it still holds; negative when it is over."""
        return self.ends - now


def parse(chain: bytes, key: bytes, *, where: str = "", key_where: str = "") -> Pair:
    """Certificate and key from PEM.

    Args:
        chain: the certificate, then those above it.
        key: without a passphrase.
        where, key_where: what sentences call the two.

    Raises:
        CertificateWrong: they are none, or do not belong together.
    """
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise CertificateWrong(f"{where} holds no certificate ({error}).", "Give the PEM file of the chain.") from error
    try:
        private = serialization.load_pem_private_key(key, None)
    except TypeError as error:
        remedy = "Give one without: nobody could type it at a failover."
        raise CertificateWrong(f"The key {key_where} has a passphrase.", remedy) from error
    except ValueError as error:
        raise CertificateWrong(f"{key_where} holds no private key.", "Give the PEM file of the key.") from error
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        first = f" The first certificate in {where} counts; the server's own has to be first." if where else ""
        raise CertificateWrong(
            f"The key {key_where} does not belong to the certificate {where}.",
            f"Give the two that were made together.{first}",
        )
    names = _names(certificate)
    return Pair(chain, key, names, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = (str(one) for one in found.get_values_for_type(x509.IPAddress))
    return frozenset({*(name.lower() for name in found.get_values_for_type(x509.DNSName)), *addresses})


def read(certificate: pathlib.Path, key: pathlib.Path) -> Pair:
    """Certificate and key from their files.

    Raises:
        CertificateWrong: they cannot be read, or cannot serve.
    """
    found = []
    for path, what in ((certificate, "certificate"), (key, "key")):
        try:
            with path.open("rb") as file:
                found.append(file.read(MAX_BYTES))
        except OSError as error:
            raise CertificateWrong(
                f"The {what} {path} cannot be read ({error.strerror}).", "Put it there on both servers."
            ) from error
    return parse(found[0], found[1], where=str(certificate), key_where=str(key))


def trouble(certificate: pathlib.Path, key: pathlib.Path, now: dt.datetime) -> str:
    """What people have to be told about a given certificate: that it cannot serve, is over, or soon will be."""
    try:
        pair = read(certificate, key)
    except CertificateWrong as error:
        return str(error)
    day = f"{pair.ends:%Y-%m-%d}"
    if pair.begins > now:
        return f"The certificate {certificate} does not hold before {pair.begins:%Y-%m-%d}."
    if pair.left(now) <= dt.timedelta():
        return f"The certificate {certificate} was over on {day}: browsers refuse it. Put a new one in its place."
    if pair.left(now) <= dt.timedelta(days=WARN_DAYS):
        return (
            f"The certificate {certificate} is over on {day}. Put a new one in its place; nothing has to be restarted."
        )
    return ""


def covers(pair: Pair, name: str) -> bool:
    """Whether a certificate is for a name or an address; a wildcard stands for one label."""
    name = name.lower()
    try:
        return str(ipaddress.ip_address(name)) in pair.names
    except ValueError:
        return name in pair.names or f"*.{name.partition('.')[2]}" in pair.names
