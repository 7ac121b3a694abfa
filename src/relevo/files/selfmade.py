"""The certificate that is made when none is given: EC P-256, signed by itself, kept on the volume.

    .relevo/tls/key.pem           the key, mode 0600; it stays when the certificate is renewed
    .relevo/tls/certificate.pem   the certificate

It is made anew `RENEW_DAYS` before it is over, and when it has to be for another name or address. Runs in threads.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relevo.config.certificates import MAX_BYTES, CertificateWrong, Pair, parse
from relevo.files.volume import Volume
from relevo.files.whole import read_whole, replace_whole

FOLDER = "tls"
KEY = "key.pem"
CERTIFICATE = "certificate.pem"
VALID_DAYS = 397
"""Browsers take no longer ones (CA/Browser Forum's baseline; Apple asks it of certificates that users add, too)."""
RENEW_DAYS = 30
BACKDATED = dt.timedelta(hours=1)
"""Clocks of clients go wrong."""
_NAME_MAX = 64


def ensure(volume: Volume, names: tuple[str, ...], now: dt.datetime) -> Pair:
    """The certificate on the volume, made or renewed where needed.

    Args:
        volume: the open one.
        names: DNS names and addresses that it has to be for; the first is its common name.
        now: with its time zone.

    Raises:
        OSError: as the system calls do.
    """
    key = read_whole(volume, FOLDER, KEY, MAX_BYTES)
    if key is not None:
        with contextlib.suppress(CertificateWrong):
            pair = parse(read_whole(volume, FOLDER, CERTIFICATE, MAX_BYTES) or b"", key)
            if pair.left(now) > dt.timedelta(days=RENEW_DAYS) and {name.lower() for name in names} <= pair.names:
                return pair
    private = _private(key)
    if private is None:
        private = ec.generate_private_key(ec.SECP256R1())
        key = pem(private)
        replace_whole(volume, FOLDER, KEY, key)
    assert key is not None, "there is a key now"
    chain = certificate(private, names, now).public_bytes(serialization.Encoding.PEM)
    replace_whole(volume, FOLDER, CERTIFICATE, chain)
    return parse(chain, key)


def _private(key: bytes | None) -> ec.EllipticCurvePrivateKey | None:
    if key is None:
        return None
    try:
        found = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        return None
    return found if isinstance(found, ec.EllipticCurvePrivateKey) else None


def pem(private: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as its file has it."""
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate(private: ec.EllipticCurvePrivateKey, names: tuple[str, ...], now: dt.datetime) -> x509.Certificate:
    """A certificate signed by its own key, for names and addresses, valid from now on."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_NAME_MAX])])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
