"""The name that drbd.conf gives a device."""

from __future__ import annotations

import pathlib

from relevo.device.alias import alias


def test_the_name_is_there_meanwhile(tmp_path: pathlib.Path) -> None:
    name, device = tmp_path / "drbd0", tmp_path / "run" / "device"
    device.parent.mkdir()
    with alias(name, device):
        assert not name.exists()
        device.write_text("blocks")
        assert name.read_text() == "blocks"
    assert not name.is_symlink()
    assert device.exists()


def test_without_a_name_nothing_happens(tmp_path: pathlib.Path) -> None:
    with alias(None, tmp_path / "device"):
        assert list(tmp_path.iterdir()) == []


def test_what_others_have_there_stays(tmp_path: pathlib.Path) -> None:
    name, others = tmp_path / "drbd0", tmp_path / "others"
    others.mkdir()
    for make in (lambda: name.write_text("drbd's own"), lambda: name.symlink_to(others / "device")):
        make()
        with alias(name, tmp_path / "device"):
            assert not name.is_symlink() or name.readlink() == others / "device"
        assert name.is_symlink() or name.read_text() == "drbd's own"
        name.unlink()


def test_what_a_power_cut_left_is_replaced(tmp_path: pathlib.Path) -> None:
    name, device = tmp_path / "drbd0", tmp_path / "device"
    for left in (device, tmp_path / "gone" / "device"):
        name.symlink_to(left)
        with alias(name, device):
            assert name.readlink() == device
        assert not name.is_symlink()
