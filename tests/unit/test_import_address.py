"""An address named by hand lands on the link it was named for, or is refused."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from relevo.cli.import_ha import ImportRefused, _given

NODES = ["alpha", "beta"]


def test_an_address_is_of_the_link_that_it_names() -> None:
    found = _given(["alpha:eth1=10.0.0.1/24", "alpha:eth0=10.1.0.1/24"], NODES, ["eth0", "eth1"])
    assert found == {"alpha": {"eth1": (IPv4Interface("10.0.0.1/24"),), "eth0": (IPv4Interface("10.1.0.1/24"),)}}


def test_one_link_needs_no_name() -> None:
    assert _given(["beta=10.0.0.2"], NODES, ["eth0"]) == {"beta": {"eth0": (IPv4Interface("10.0.0.2/24"),)}}


@pytest.mark.parametrize("word", ["alpha=10.0.0.1/24", "alpha:eth9=10.0.0.1/24", "alpha:=10.0.0.1/24"])
def test_an_address_without_a_known_link_is_refused(word: str) -> None:
    with pytest.raises(ImportRefused, match="link"):
        _given([word], NODES, ["eth0", "eth1"])
