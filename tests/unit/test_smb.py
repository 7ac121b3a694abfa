"""Network drives and NFS: what their servers are told, which rights a connection loses, the hash of Windows' logins."""

from __future__ import annotations

import asyncio
import pathlib
import struct
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from relevo.agents import nfs_conf, nfs_probe, smb_conf, smb_probe
from relevo.agents.base import AgentFailed
from relevo.agents.framed import exchange
from relevo.agents.smb_conf import Drive, Drives, DriveUser, Settings
from relevo.config.model import NfsExport
from relevo.files.accounts import changes, network, nt, orders, store
from relevo.files.accounts.access import Policy
from relevo.files.accounts.model import Accounts
from relevo.files.accounts.seen import Saved
from relevo.files.errors import FilesError

SETTINGS = Settings(
    run=pathlib.Path("/run/relevo/smb-files"),
    state=pathlib.Path("/srv/relevo/.relevo/smb"),
    port=445,
    workgroup="OFICINA",
    encrypt=False,
    durable="close",
)


def family() -> Accounts:
    accounts = store.new()
    for name in ("root", "ana", "leo", "eva"):
        accounts = changes.add_user(accounts, name, password="x", nt=nt.nt_hash(name), admin=name == "root")
    accounts = changes.add_group(accounts, "staff")
    for name in ("ana", "leo"):
        accounts = changes.set_member(accounts, "staff", name, member=True)
    for name, path in (("all", ()), ("docs", ("docs",)), ("key", ("docs", "a*b", "deep")), ("homes", ("homes",))):
        accounts = changes.add_share(accounts, name, path)
    accounts = changes.permit(accounts, "docs", "@staff", "write")
    return changes.permit(accounts, "docs", "leo", "read")


def told(accounts: Accounts) -> Drives:
    return msgspec.convert(network.told(Policy(accounts)), Drives)


def section(drives: Drives, name: str) -> dict[str, str]:
    lines = smb_conf.smb_conf(drives, SETTINGS).split(f"[{name}]\n")[1].split("[")[0].splitlines()
    return dict(line.split(" = ", 1) for line in lines)


def test_smbd_is_told_what_the_accounts_decide() -> None:
    drives = told(family())
    docs = section(drives, "docs")
    assert docs["valid users"] == "ana leo root"
    assert docs["write list"] == "ana root"
    assert (
        docs["veto files"] == "/a*b/"
    )  # the way to a share inside it: whoever could move it would take its rights away
    assert section(drives, "key")["valid users"] == "root"
    assert section(drives, "all")["veto files"] == "/.relevo/docs/homes/lost+found/"
    assert "[homes]" not in smb_conf.smb_conf(drives, SETTINGS)  # a word of smb.conf, no share
    assert smb_conf.passwd(drives).splitlines()[:2] == [  # before the system's own root
        "root:x:200000:200000::/:/usr/sbin/nologin",
        "ana:x:200001:200001::/:/usr/sbin/nologin",
    ]
    assert f"leo:200002:{'X' * 32}:{nt.nt_hash('leo')}:[U          ]:" in smb_conf.smbpasswd(drives)
    assert section(drives, "global")["map to guest"] == "Never"
    open_ = told(changes.set_share(family(), "docs", public=True))
    assert ("valid users" in section(open_, "docs"), section(open_, "docs")["guest ok"]) == (False, "yes")
    assert network.told(Policy(None))["shares"] == []


@pytest.mark.parametrize(
    ("name", "pattern"), [("plans", "plans"), ("100%U", "100*U"), ("a/b;c", "a*b*c"), (" x", "*x")]
)
def test_a_hidden_name_means_nothing_else(name: str, pattern: str) -> None:
    drives = Drives(shares=(Drive(name="s", path=("s",), writers=("ana",), hidden=(name,)),))
    assert section(drives, "s")["veto files"] == f"/{pattern}/"


def test_who_may_do_less_is_disconnected_and_nobody_else() -> None:
    accounts = family()
    before = told(accounts)

    def lost(after: Accounts) -> tuple[list[str], list[str]]:
        return smb_conf.withdrawn(before, told(after))

    assert lost(changes.permit(accounts, "docs", "eva", "write")) == ([], [])
    assert lost(changes.permit(accounts, "docs", "leo", "write")) == ([], [])
    assert lost(changes.permit(accounts, "docs", "ana", "read")) == (["docs"], [])
    assert lost(changes.set_member(accounts, "staff", "ana", member=False)) == (["docs"], [])
    assert lost(changes.remove_share(accounts, "key")) == (["key"], [])
    assert lost(changes.add_share(accounts, "more", ("docs", "more"))) == (["docs"], [])
    assert lost(changes.set_password(accounts, "eva", "y", nt.nt_hash("y"))) == ([], ["eva"])
    assert lost(changes.set_user(accounts, "ana", enabled=False)) == (["docs"], ["ana"])
    public = told(changes.set_share(accounts, "docs", public=True))
    assert smb_conf.withdrawn(public, before) == (["docs"], [])
    user = DriveUser(name="ana", uid=1)
    assert smb_conf.withdrawn(Drives(users=(user,)), Drives(users=(replace(user, uid=2),))) == ([], ["ana"])


def test_md4_as_in_rfc_1320() -> None:
    digits = "1234567890" * 8
    wanted = {"": "31d6cfe0d16ae931b73c59d7e0c089c0", "abc": "a448017aaf21d8525fc10ae87aa6729d"}
    wanted[digits] = "e33b4ddc9c38f2199c3e7b164fcc0536"
    assert {text: nt.md4(text.encode()).hex() for text in wanted} == wanted
    assert nt.nt_hash("password") == "8846F7EAEE8FB117AD06BDD830B7586C"


def test_a_hash_crosses_the_network_only_sealed() -> None:
    hashed = nt.nt_hash("secret")
    sealed = nt.seal(b"key", hashed)
    assert hashed.lower() not in sealed
    assert sealed != nt.seal(b"key", hashed)
    assert nt.opened(b"key", {"order": "user-set", "nt": sealed})["nt"] == hashed
    for wrong in ("00", "zz", hashed):
        with pytest.raises(FilesError):
            orders.parse(nt.opened(b"key", {"order": "user-set", "name": "ana", "nt": wrong}))


def test_a_password_without_its_nt_hash_leaves_none_behind() -> None:
    accounts = changes.set_password(family(), "ana", "y")
    assert accounts.users["ana"].nt == ""
    learnt = changes.learn_nt(accounts, "ana", "y", nt.nt_hash("y"))
    assert learnt.users["ana"].nt == nt.nt_hash("y")
    assert changes.learn_nt(accounts, "ana", "of before", nt.nt_hash("z")) is accounts
    shown = orders.shown(learnt, Saved())
    assert nt.nt_hash("y") not in msgspec.json.encode(shown).decode()


def nfs_settings(*exports: NfsExport) -> nfs_conf.NfsSettings:
    root = pathlib.Path("/srv/relevo")
    return nfs_conf.NfsSettings(root=root, state=root / ".relevo/nfs", port=2049, grace_s=8, exports=exports)


def test_ganesha_is_told_hosts_and_numbers() -> None:
    hosts = ("192.168.0.0/24", "192.168.1.7")
    settings = nfs_settings(
        NfsExport(share="docs", clients=hosts, write=True, root=True),
        NfsExport(share="all", clients=hosts, root=True),
        NfsExport(share="key", clients=hosts, user="ana"),
        NfsExport(share="none", clients=hosts),
        NfsExport(share="homes", clients=hosts, user="nobody"),
    )
    drives = told(family())
    blocks = nfs_conf.ganesha_conf(drives, settings).split("EXPORT {")[1:]
    docs, whole, key = blocks
    assert 'Path = "/srv/relevo/docs";' in docs
    assert "CLIENT { Clients = 192.168.0.0/24, 192.168.1.7; Access_Type = RW; Squash = No_Root_Squash; }" in docs
    assert "Access_Type = RO; Squash = Root_Squash;" in whole  # the accounts lie below the root of the volume
    assert ("Squash = All_Squash" in key, "Anonymous_Uid = 200001;" in key) == (True, True)
    missing = nfs_conf.missing(drives, settings)
    assert [("'none'" in one, "'nobody'" in one) for one in missing] == [(True, False), (False, True)]
    # the number of an export is in every handle that clients hold: other exports do not change it
    alone = nfs_conf.numbers((NfsExport(share="docs", clients=hosts),))
    assert alone["docs"] == nfs_conf.numbers(settings.exports)["docs"]


@pytest.mark.parametrize(("name", "text"), [("a b", '"a b"'), ('a"b', "'a\"b'"), ("a\\b", "'a\\b'"), ("a\"'", None)])
def test_a_folder_is_written_so_that_ganesha_reads_the_same(name: str, text: str | None) -> None:
    assert nfs_conf.quoted(name) == text
    drives = Drives(shares=(Drive(name="s", path=(name,), writers=("ana",)),))
    settings = nfs_settings(NfsExport(share="s", clients=("10.0.0.1",)))
    assert bool(nfs_conf.missing(drives, settings)) is (text is None)
    assert ("EXPORT {" in nfs_conf.ganesha_conf(drives, settings)) is (text is not None)


def test_a_server_that_speaks_nfs_is_told_from_one_that_does_not() -> None:
    call = nfs_probe.request(7)
    assert (len(call), call[:4], call[4:8]) == (44, b"\x80\0\0\x28", b"\0\0\0\x07")
    nfs_probe.check(struct.pack(">IIIIII", 7, 1, 0, 0, 0, 0), 7)
    for wrong in (b"HTTP", struct.pack(">IIIIII", 8, 1, 0, 0, 0, 0), struct.pack(">IIIIII", 7, 1, 0, 0, 0, 2)):
        with pytest.raises(AgentFailed):
            nfs_probe.check(wrong, 7)


def answer(status: int = 0, command: int = 0, dialect: int = 0x0302, magic: bytes = b"\xfeSMB") -> bytes:
    head = magic + struct.pack("<HHIH", 64, 0, status, command)
    return head.ljust(64, b"\0") + struct.pack("<HHH", 65, 1, dialect)


@pytest.mark.parametrize("wrong", [{"status": 0xC0000022}, {"command": 1}, {"magic": b"HTTP"}])
def test_a_server_that_speaks_smb_is_told_from_one_that_does_not(wrong: dict[str, Any]) -> None:
    length, packet = struct.unpack(">I", smb_probe.request()[:4])[0], smb_probe.request()[4:]
    assert (length, packet[:4], packet[64:66]) == (len(packet), b"\xfeSMB", b"\x24\0")
    assert smb_probe.dialect_of(answer()) == 0x0302
    for bad in (answer(**wrong), b"\xfeSMB"):
        with pytest.raises(AgentFailed):
            smb_probe.dialect_of(bad)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"\x80\0\0\x02ok and more", b"ok"),
        (b"\0\0\0\x09much more", b"much"),  # no more than is wanted
        (b"\0\0\0\x03ok", "The NFS server on port [0-9]+ does not answer"),  # it hangs up in the middle
        (b"", "The NFS server on port [0-9]+ does not answer"),
    ],
)
def test_one_request_one_answer(said: bytes, outcome: bytes | str) -> None:
    async def story() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readexactly(8) == b"\0\0\0\x04ping"
            writer.write(said)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            asked = exchange("NFS", port, b"\0\0\0\x04ping", 20.0, 4, "127.0.0.1")
            if isinstance(outcome, bytes):
                assert await asked == outcome
            else:
                with pytest.raises(AgentFailed, match=outcome):
                    await asked
        with pytest.raises(AgentFailed, match=r"SMB server on port [0-9]+ does not answer"):
            await exchange("SMB", port, b"", 20.0, 4, "127.0.0.1")

    asyncio.run(story())
