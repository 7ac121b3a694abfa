"""TLS: a certificate that is made and stays the same, one that is given and exchanged while connections go on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import pathlib
import ssl
import stat
from collections.abc import AsyncIterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from accounts_support import PASSWORD, family
from files_bench import Bench, bench
from relevo.config import certificates
from relevo.config.model import FilesTls
from relevo.files import selfmade
from relevo.files.client import put_file
from relevo.files.client.errors import CertificateNotTrusted
from relevo.files.daemon import listen

NOW = dt.datetime.now(dt.UTC)
NAME = "nodo1"


def pair(folder: pathlib.Path, name: str = NAME, days: int = 90, label: str = "given") -> FilesTls:
    """A certificate and its key in files."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    made = selfmade.certificate(key, (name, "192.0.2.7"), NOW + dt.timedelta(days=days - selfmade.VALID_DAYS))
    paths = folder / f"{label}.pem", folder / f"{label}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(selfmade.pem(key))
    return FilesTls(port=443, certificate=paths[0], key=paths[1])


def trusting(chain: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=chain.decode())


async def shown(port: int) -> bytes:
    """The certificate that a new connection gets, without saying a name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return bytes(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def secure(it: Bench) -> AsyncIterator[int]:
    """The port of TLS, while the body runs."""
    assert it.service.tls is not None
    listening, port = await listen(it.service, "127.0.0.1", 0, it.service.tls.ports)
    try:
        yield port
    finally:
        listening.close()


def test_one_is_made_and_both_servers_show_it(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path, tls=FilesTls(port=443)) as it, secure(it) as port:
            await family(it)
            (it.root / "open").mkdir(exist_ok=True)
            data = bytes(range(256)) * 20_000
            (it.root / "open/big.bin").write_bytes(data)
            folder = it.root / ".relevo/tls"
            assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
            more = {"ssl": trusting((folder / "certificate.pem").read_bytes()), "server_hostname": NAME}
            url = f"https://127.0.0.1:{port}/"
            async with it.http.get(url + "open/big.bin", **more) as answer:
                assert await answer.read() == data
            async with it.http.get(url + "open/big.bin", headers={"Range": "bytes=1000000-"}, **more) as answer:
                assert (answer.status, await answer.read()) == (206, data[1_000_000:])
            form = {"name": "ana", "password": PASSWORD}
            async with it.http.post(url + ".relevo/login", data=form, allow_redirects=False, **more) as answer:
                assert "; Secure" in answer.headers["Set-Cookie"]
                assert "Strict-Transport-Security" not in answer.headers
            async with it.http.post(it.url + ".relevo/login", data=form, allow_redirects=False) as answer:
                assert "; Secure" not in answer.headers["Set-Cookie"]
            source = tmp_path / "source"
            source.write_bytes(b"x")
            with pytest.raises(CertificateNotTrusted, match="SSL_CERT_FILE"):
                await put_file(source, url + "open/x")
            before = await shown(port)
            await it.service.close()
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await shown(port)
            await it.service.open()
            assert await shown(port) == before

    asyncio.run(main())


def test_one_that_was_made_is_renewed_in_time(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as it:
            volume = it.service.volume
            first = selfmade.ensure(volume, ("files.example.org", "192.0.2.1"), NOW)
            assert first.names == {"files.example.org", "192.0.2.1"}
            assert selfmade.ensure(volume, ("192.0.2.1",), NOW + dt.timedelta(days=300)) == first
            later = NOW + dt.timedelta(days=selfmade.VALID_DAYS - selfmade.RENEW_DAYS + 1)
            second = selfmade.ensure(volume, ("192.0.2.1",), later)
            assert second.ends > first.ends
            assert second.key == first.key, "what a client remembers of the key stays right"
            assert "192.0.2.9" in selfmade.ensure(volume, ("192.0.2.9",), later).names
            (it.root / ".relevo/tls/certificate.pem").write_bytes(b"half a")
            assert selfmade.ensure(volume, ("192.0.2.9",), later).key == first.key
            (it.root / ".relevo/tls/key.pem").write_bytes(b"half a")
            assert selfmade.ensure(volume, ("192.0.2.9",), later).key != first.key

    asyncio.run(main())


def test_a_given_one_is_exchanged_while_connections_go_on(tmp_path: pathlib.Path) -> None:
    wanted = pair(tmp_path)
    assert wanted.certificate is not None
    assert wanted.key is not None
    certificate, key = wanted.certificate, wanted.key

    async def main() -> None:
        async with bench(tmp_path, tls=wanted, opened=False) as it, secure(it) as port:
            tls = it.service.tls
            assert tls is not None
            tls.look()
            first = certificate.read_bytes()
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(first), server_hostname=NAME)
            assert b'"closed"' in await ask(reader, writer), "the server without the volume has it too"
            other = pair(tmp_path, label="other")
            assert other.certificate is not None
            assert other.key is not None
            certificate.write_bytes(other.certificate.read_bytes())
            tls.look()
            assert "does not belong" in tls.problem
            assert await shown(port) == ssl.PEM_cert_to_DER_cert(first.decode())
            key.write_bytes(other.key.read_bytes())
            tls.look()
            assert tls.problem == ""
            assert await shown(port) == ssl.PEM_cert_to_DER_cert(certificate.read_text())
            await it.service.open()
            assert b'"open"' in await ask(reader, writer), "the old connection goes on"
            writer.close()
            more = {"ssl": trusting(certificate.read_bytes()), "server_hostname": NAME}
            headers = {"Accept": "text/html"}
            async with it.http.get(f"https://127.0.0.1:{port}/", headers=headers, **more) as answer:
                assert answer.headers["Strict-Transport-Security"].startswith("max-age=")

    asyncio.run(main())


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET /.relevo/health HTTP/1.1\r\nHost: x\r\n\r\n")
    return await reader.readuntil(b"}")


def test_plain_http_leads_to_tls(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path, tls=FilesTls(port=8443, only=True)) as it:
            async with it.http.get(it.url + "a%20b?x=1", allow_redirects=False) as answer:
                assert answer.status == 308
                assert answer.headers["Location"] == "https://127.0.0.1:8443/a%20b?x=1"
            async with it.http.put(it.url + "new", data=b"x") as answer:
                assert answer.status == 403
            async with it.http.get(it.url, headers={"Host": "evil/"}, allow_redirects=False) as answer:
                assert answer.status == 400
            async with it.http.get(it.url + ".relevo/health") as answer:
                assert answer.status == 200
            assert not (it.root / "new").exists()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("days", "said"),
    [(90, ""), (certificates.WARN_DAYS - 1, "is over on"), (-1, "was over"), (500, "does not hold before")],
)
def test_what_people_are_told_of_a_certificate(tmp_path: pathlib.Path, days: int, said: str) -> None:
    given = pair(tmp_path, days=days)
    assert given.certificate is not None
    assert given.key is not None
    told = certificates.trouble(given.certificate, given.key, NOW)
    assert said in told
    assert bool(said) == bool(told)


def test_sentences_about_pairs_that_cannot_serve(tmp_path: pathlib.Path) -> None:
    given, other = pair(tmp_path), pair(tmp_path, label="other")
    assert given.certificate is not None
    assert given.key is not None
    assert other.key is not None
    assert "does not belong" in certificates.trouble(given.certificate, other.key, NOW)
    assert "holds no certificate" in certificates.trouble(given.key, given.key, NOW)
    assert "holds no private key" in certificates.trouble(given.certificate, given.certificate, NOW)
    assert "cannot be read" in certificates.trouble(tmp_path / "nothing", given.key, NOW)
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    given.key.write_bytes(locked)
    assert "passphrase" in certificates.trouble(given.certificate, given.key, NOW)
    found = certificates.parse(other.certificate.read_bytes(), other.key.read_bytes())  # type: ignore[union-attr]
    assert certificates.covers(found, "NODO1")
    assert certificates.covers(found, "192.0.2.7")
    assert not certificates.covers(found, "192.0.2.8")
    assert x509.load_pem_x509_certificate(found.chain).signature_hash_algorithm is not None
