"""What the status says of mirrors that are not as they should be: why, and the command that mends it."""

from __future__ import annotations

from typing import Any

import pytest

from relevo.node.mirror_alarms import mirror_alarms

BOTH = {"connection": "Connected", "disk": "UpToDate", "out_of_sync_bytes": 0, "split_brain": False}
QUIET: dict[str, Any] = {**BOTH, "io_suspended": False, "role": "Secondary", "problem": ""}
ACTIVE = {**QUIET, "role": "Primary"}


def alarms(active: dict[str, Any] | None, passive: dict[str, Any] | None, *silent: str) -> list[str]:
    told = {"nodo1": None if active is None else {**ACTIVE, **active}}
    told |= {"nodo2": None if passive is None else {**QUIET, **passive}}
    return mirror_alarms({"r0": {node: side for node, side in told.items() if side is not None}}, frozenset(silent))


def test_two_current_copies_that_are_connected_are_no_alarm() -> None:
    assert mirror_alarms({"r0": {"nodo1": ACTIVE, "nodo2": QUIET}}, frozenset()) == []


@pytest.mark.parametrize(
    ("active", "passive", "words"),
    [
        ({"connection": "StandAlone"}, {"connection": "WFConnection", "disk": "Outdated"}, "relevo mirror connect r0"),
        ({}, {"disk": "Diskless"}, "nodo2 uses no disk. When that is in order, there: relevo mirror attach r0"),
        (
            {"connection": "SyncSource"},
            {"connection": "SyncTarget", "disk": "Inconsistent", "out_of_sync_bytes": 8192},
            "The copy on nodo2 is being brought up to date: 8.0 KiB to go.",
        ),
        (
            {"connection": "PausedSyncS"},
            {"connection": "PausedSyncT", "disk": "Inconsistent", "out_of_sync_bytes": 4096},
            "relevo mirror resume-sync r0",
        ),
    ],
)
def test_one_copy_is_told_with_its_reason_and_the_command_that_mends_it(
    active: dict[str, Any], passive: dict[str, Any], words: str
) -> None:
    (said,) = alarms(active, passive)
    assert said.startswith("Mirror r0: only nodo1 has a current copy. The next failure stops the service.")
    assert words in said


def test_a_server_that_is_away_is_named_and_a_split_brain_has_its_own_alarm() -> None:
    assert alarms({"connection": "WFConnection"}, None, "nodo2")[0].endswith("stops the service. nodo2 is not there.")
    parted = {"connection": "StandAlone", "split_brain": True}
    assert alarms(parted, {**parted, "disk": "Outdated"})[0].endswith("The next failure stops the service.")
    assert alarms(parted, parted) == []


def test_a_link_between_the_mirrors_alone_that_is_cut_is_told_with_the_way_to_look_at_it() -> None:
    cut = {"connection": "WFConnection"}
    (said,) = alarms(cut, {**cut, "disk": "Outdated"})
    assert said.endswith(
        "nodo1 and nodo2 look for each other in vain: is the link between their mirrors cut? "
        "To see which: relevo check --links"
    )
    secret = {**cut, "problem": "The peer answered our challenge wrongly."}
    assert "in vain" not in alarms(secret, {**cut, "disk": "Outdated"})[0], "that has an alarm of its own"
    assert "in vain" not in alarms(cut, None, "nodo2")[0]


def test_copies_that_differ_are_an_alarm_with_both_ways_to_mend_them() -> None:
    (said,) = alarms({"out_of_sync_bytes": 12288}, {"out_of_sync_bytes": 12288})
    assert "the copies differ in 12.0 KiB" in said
    assert "relevo mirror resync r0" in said
    assert "relevo move SERVICE nodo2" in said
    assert alarms({"connection": "VerifyS", "out_of_sync_bytes": 4096}, {"connection": "VerifyT"}) == [], "not over yet"


def test_held_io_is_an_alarm() -> None:
    (said,) = alarms({"io_suspended": True}, {})
    assert "Mirror r0 on nodo1" in said
    assert said.endswith("relevo mirror resume-io r0")
