"""Both sockets, authentication, and what does not fit together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernel_pair import Pair

PairMaker = Callable[..., Pair]


@pytest.mark.short
@pytest.mark.parametrize("hmac", ["sha1", "sha256", "md5"])
def test_authentication(make_pair: PairMaker, hmac: str) -> None:
    pair = make_pair(hmac=hmac)
    pair.start_in_sync()
    pair.compare_whole()
