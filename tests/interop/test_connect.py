"""Both sockets, authentication, and what does not fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kernel_pair import DISK_BYTES, Pair

PairMaker = Callable[..., Pair]
NOWHERE = 7999
"""A port on which nobody listens."""


@pytest.mark.parametrize("hmac", ["sha1", pytest.param("sha256", marks=pytest.mark.short), "md5"])
def test_authentication(make_pair: PairMaker, hmac: str) -> None:
    pair = make_pair(hmac=hmac)
    pair.start_in_sync()
    pair.compare_whole()


@pytest.mark.parametrize("ours_is_lower", [True, False], ids=["ours lower", "kernel lower"])
def test_both_look_for_each_other_at_once(make_pair: PairMaker, ours_is_lower: bool) -> None:
    pair = make_pair(ours_is_lower=ours_is_lower)
    pair.start_in_sync()
    for _ in range(5):
        pair.cut()
        pair.wait_lost()
        pair.heal()
        pair.wait_in_sync()
    pair.compare_whole()


@pytest.mark.parametrize(
    ("ports", "opened"),
    [
        ({"kernel_calls": NOWHERE}, {"data": "opened", "meta": "opened"}),
        ({"kernel_listens": NOWHERE}, {"data": "accepted", "meta": "accepted"}),
    ],
    ids=["ours opens both sockets", "the kernel opens both sockets"],
)
def test_sockets(make_pair: PairMaker, ports: dict[str, int], opened: dict[str, str]) -> None:
    pair = make_pair(**ports)
    pair.start_in_sync()
    (event,) = pair.ours.events("sockets")
    assert {name: event[name] for name in opened} == opened
    pair.compare_whole()


def test_each_opens_one_socket_ours_first(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_kernel()
    pair.kernel.wait_for("cs:WFConnection")
    pair.ours.start()
    pair.wait_in_sync()
    (event,) = pair.ours.events("sockets")
    assert (event["data"], event["meta"]) == ("opened", "accepted")
    pair.compare_whole()


def test_each_opens_one_socket_the_kernel_first(make_pair: PairMaker) -> None:
    pair = make_pair(mirror='connect_interval = "5 s"\n')
    pair.ours.start()
    pair.ours.wait_for(lambda status: status["connection"] == "WFConnection", "the search")
    pair.start_kernel()
    pair.wait_in_sync()
    (event,) = pair.ours.events("sockets")
    assert (event["data"], event["meta"]) == ("accepted", "opened")
    pair.compare_whole()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "wrong secret": ({"kernel_secret": "close sesame"}, "secret"),
    "other hmac": ({"kernel_hmac": "sha1"}, "hmac"),
    "no hmac": ({"kernel_hmac": "none"}, "secret"),
    "protocol A": ({"protocol": "A", "options": {"protocol": "C"}}, "protocol A"),
    "protocol B": ({"protocol": "B", "options": {"protocol": "C"}}, "protocol B"),
    "two primaries": ({"net": ("allow-two-primaries yes;",)}, "two"),
    "after-sb-0pri": ({"net": ("after-sb-0pri discard-zero-changes;",)}, "after-sb-0pri"),
    "data-integrity-alg": ({"net": ("data-integrity-alg md5;",)}, "data-integrity-alg"),
    "verify-alg": ({"net": ("verify-alg sha1;",)}, "verify-alg"),
    "csums-alg": ({"net": ("csums-alg sha1;",)}, "csums-alg"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(make_pair: PairMaker, what: str) -> None:
    options, word = REFUSED[what]
    pair = make_pair(**options)
    pair.start()
    status = pair.ours.wait_for(lambda status: word in status["problem"], f"a sentence with {word!r}", 20)
    assert status["peer_disk"] == "DUnknown"
    assert not pair.kernel.drbd().in_sync


def test_refused_a_new_disk_that_is_smaller(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.replace_kernel_disk(DISK_BYTES // 2)
    pair.start_kernel()
    pair.ours.wait_for(lambda status: "smaller" in status["problem"], "a sentence about the size", 20)


def test_disks_of_different_sizes(make_pair: PairMaker) -> None:
    pair = make_pair(kernel_disk_bytes=DISK_BYTES // 2)
    pair.start_in_sync()
    assert pair.ours.status()["size_bytes"] == pair.data_bytes
    pair.compare_whole()


def test_refused_unrelated_data(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.kernel.run("drbdadm up r0 && drbdadm disconnect r0 && drbdadm primary --force r0 && drbdadm secondary r0")
    pair.ours.start()
    pair.ours.promote(force=True)
    pair.ours.call("secondary")
    pair.kernel.run("drbdadm connect r0")
    status = pair.ours.wait_for(lambda status: "nothing in common" in status["problem"], "the refusal", 20)
    assert status["connection"] == "StandAlone"
    pair.kernel.wait_for("cs:(StandAlone|WFConnection)")
