"""Orders from the other server: signed with the key of the cluster, sent to the active server's port. Pure.

    POST /.relevo/orders
    Relevo-Order: TIME NONCE SIGNATURE
    body: one order as JSON

TIME: seconds since 1970; SIGNATURE: hexadecimal HMAC-SHA256 over `order TIME NONCE ` and the body, with a key derived
from the heartbeats'. The answer carries `Relevo-Answer`: the same over `answer NONCE STATUS ` and its body. A nonce
counts once; an order older than `VALID_S` does not count.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict

from relevo.files.errors import FilesError
from relevo.files.urls import WORK_FOLDER

PLACE = (WORK_FOLDER, "orders")
FIELD = "Relevo-Order"
ANSWER_FIELD = "Relevo-Answer"
VALID_S = 60
NONCES_MAX = 10_000
ORDER_MAX_BYTES = 64 << 10


def key_of(secret: str) -> bytes:
    """The key for orders, derived from the one that signs heartbeats."""
    return hmac.digest(secret.encode(), b"relevo: orders to the file service", "sha256")


def sign(key: bytes, body: bytes, now_s: int) -> tuple[str, str]:
    """The field for an order, and its nonce."""
    nonce = secrets.token_hex(16)
    return f"{now_s} {nonce} {_mac(key, f'order {now_s} {nonce} ', body)}", nonce


def sign_answer(key: bytes, nonce: str, status: int, body: bytes) -> str:
    """The field for an answer."""
    return _mac(key, f"answer {nonce} {status} ", body)


def is_answer(key: bytes, nonce: str, status: int, body: bytes, field: str) -> bool:
    """Whether an answer comes from a server of this cluster, and belongs to this order."""
    return hmac.compare_digest(sign_answer(key, nonce, status, body).encode(), field.encode("utf-8", "replace"))


def _mac(key: bytes, head: str, body: bytes) -> str:
    return hmac.digest(key, head.encode() + body, "sha256").hex()


class Desk:
    """Lets signed orders in, each once.

    Args:
        key: from `key_of`; None: there is no key that would prove anything, so no order is let in.
    """

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self._seen: OrderedDict[str, int] = OrderedDict()

    def check(self, field: str, body: bytes, now_s: int) -> str:
        """The nonce of a signed order.

        Raises:
            FilesError: 403, it is not signed by this cluster, too old, or was let in before.
        """
        parts = field.split(" ")
        if self.key is None or len(parts) != 3 or not (parts[0].isascii() and parts[0].isdigit()):
            raise FilesError(403, "unsigned")
        moment, nonce, signature = parts
        right = _mac(self.key, f"order {moment} {nonce} ", body)
        if not hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace")):
            raise FilesError(403, "unsigned")
        if len(moment) > 12 or abs(int(moment) - now_s) > VALID_S or nonce in self._seen:
            raise FilesError(403, "unsigned")
        self._seen[nonce] = now_s
        while self._seen and (len(self._seen) > NONCES_MAX or next(iter(self._seen.values())) < now_s - 2 * VALID_S):
            self._seen.popitem(last=False)
        return nonce
