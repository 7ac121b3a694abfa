"""What survives: our identity and generation, the marks of the peers, and the identity of a boot."""

from __future__ import annotations

import pathlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from relevo.base.bootid import boot_id
from relevo.heartbeat.events import Mark
from relevo.heartbeat.store import StateUnreadable, Store


def test_every_start_is_a_new_generation_of_the_same_node(tmp_path: pathlib.Path) -> None:
    before = int(time.time())
    uuid, first = Store(tmp_path).begin_generation()
    assert len(uuid) == 16
    assert before <= first <= time.time()
    assert Store(tmp_path).begin_generation() == (uuid, first + 1)
    assert Store(tmp_path).begin_generation() == (uuid, first + 2)
    assert Store(tmp_path / "other").begin_generation()[0] != uuid


def test_marks_survive(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    assert store.marks() == {}
    store.keep({"nodo2": Mark(5, 100)})
    store.keep({"nodo2": Mark(6, 24), "nodo3": Mark(1, 2)})
    assert Store(tmp_path).marks() == {"nodo2": Mark(6, 24), "nodo3": Mark(1, 2)}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"uuid": "x", "generation": 1}', b'{"nodo2": 5}', b"\x00" * 50, b'{"\xff": 1}']
)
def test_nothing_is_guessed_from_a_damaged_file(tmp_path: pathlib.Path, damage: bytes) -> None:
    store = Store(tmp_path)
    store.begin_generation()
    store.keep({})
    for path in (tmp_path / "heartbeat").iterdir():
        path.write_bytes(damage)
    with pytest.raises(StateUnreadable) as identity:
        store.begin_generation()
    assert identity.value.remedy
    with pytest.raises(StateUnreadable) as heard:
        store.marks()
    assert heard.value.remedy


def test_a_boot_has_one_identity_whoever_asks_first(tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    with ThreadPoolExecutor(8) as pool:
        identities = set(pool.map(lambda _: boot_id(run), range(64)))
    assert identities == {boot_id(run)}
    assert len(identities.pop()) == 36
    assert [path.name for path in run.iterdir()] == ["boot-id"]
    assert boot_id(tmp_path / "other") != boot_id(run)
