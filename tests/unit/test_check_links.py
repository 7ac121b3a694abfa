"""What `relevo check --links` says of cards and answers."""

from __future__ import annotations

import pathlib
from ipaddress import IPv4Interface

import msgspec
import pytest

from relevo.cli.check_links import Answer, Card, here, shared_cards, verdict
from relevo.config.load import load
from relevo.config.model import Config
from relevo.lab.scene import Options, configuration, new_secrets

ETH0 = Card(2, up=True, carrier=True, mtu=1500, addresses=(IPv4Interface("192.168.0.27/24"),))
ETH1 = Card(3, up=True, carrier=True, mtu=1500, addresses=(IPv4Interface("10.27.0.1/24"),))
NAMES = {2: "eth0", 3: "eth1"}


@pytest.fixture
def config(tmp_path: pathlib.Path) -> Config:
    (tmp_path / "relevo.toml").write_text(configuration(Options()))
    made = new_secrets()
    for name, text in (("secrets.toml", made.secrets_toml), ("authkeys", made.authkeys)):
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(text)
    return load(tmp_path / "relevo.toml")


def test_cards_that_are_right_have_nothing_said_of_them(config: Config) -> None:
    assert here(config, "nodo1", {"eth0": ETH0, "eth1": ETH1}) == {}
    assert shared_cards(config) == []


@pytest.mark.parametrize(
    ("eth0", "word"),
    [
        (None, "there is no card eth0"),
        ({"up": False}, "is down"),
        ({"carrier": False}, "no carrier"),
        ({"addresses": ()}, "does not have 192.168.0.27 (its addresses: none)"),
        ({"addresses": (IPv4Interface("192.168.0.27/16"),)}, "is in 192.168.0.0/16"),
    ],
)
def test_what_is_wrong_with_a_card_is_named(config: Config, eth0: dict[str, object] | None, word: str) -> None:
    cards = {"eth1": ETH1}
    if eth0 is not None:
        fields = {name: getattr(ETH0, name) for name in ("index", "up", "carrier", "mtu", "addresses")}
        cards["eth0"] = Card(**{**fields, **eth0})
    assert word in here(config, "nodo1", cards)["users"]


def test_swapped_names_of_cards_are_guessed(config: Config) -> None:
    assert "are the names of the cards swapped?" in here(config, "nodo1", {"eth0": ETH1, "eth1": ETH0})["users"]


def test_two_links_on_one_card_fail_together(config: Config) -> None:
    cross = msgspec.structs.replace(config.links["cross"], interface="eth0")
    both = msgspec.structs.replace(config, links={**config.links, "cross": cross})
    assert "fail together" in shared_cards(both)[0]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Answer(2, large=True), ""),
        (Answer(None), "does not answer over eth0"),
        (Answer(3, large=True), "answers over eth1: are the cables swapped?"),
        (Answer(2, large=False), "none of 1500 bytes"),
    ],
)
def test_an_answer_says_what_the_way_is_like(config: Config, answer: Answer, word: str) -> None:
    target = config.nodes["nodo2"].addresses["users"]
    said = verdict(config.links["users"], "nodo2", target, ETH0, answer, NAMES)
    assert word in said if word else said == ""
