"""Give an order to whichever server has the volume: this one by its control socket, another one by a signed request."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from relevo.base.control import Refused, call
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.model import Config, FilesResource
from relevo.files.accounts import nt, remote
from relevo.files.daemon import order_key

TIMEOUT_S = 10.0
ANSWER_MAX_BYTES = 16 << 20
_UNAVAILABLE = 503


class NoneActive(RelevoError):
    """No server has the volume open, so nobody can change its accounts."""


class AnswerUnsigned(RelevoError):
    """What answered is not a server of this cluster."""


def give(config: Config, me: str, paths: Paths, files: FilesResource, order: dict[str, Any]) -> dict[str, Any]:
    """Have an order followed by the active server.

    Args:
        config: the cluster.
        me: this node.
        paths: where the control sockets lie.
        files: whose accounts these are.
        order: as `orders.parse` takes it.

    Raises:
        NoneActive: no server has the volume.
        Refused: the active server says why not.
        RelevoError: what answers cannot be trusted, or broke off.
    """
    said = []
    socket = paths.socket(f"files-{files.id}")
    try:
        state = str(call(socket, "status", timeout_s=TIMEOUT_S)["state"])
    except RelevoError:
        state = "not running"
    if state == "open":
        return call(socket, "order", order=order, timeout_s=TIMEOUT_S)
    said.append(f"on {me} it is {state}")
    key = order_key(config)
    for name, node in config.nodes.items():
        if name == me:
            continue
        if key is None:
            raise NoneActive(
                f"The file service {files.id} is not active on {me}, and the heartbeats' key (crc) signs nothing.",
                f"Give the order on {name}, or sign heartbeats with sha256.",
            )
        answer, why = ask_peer(key, (str(address) for address in node.addresses.values()), files.port, order)
        if answer is not None:
            return answer
        said.append(f"{name} {why}")
    raise NoneActive(f"The file service {files.id} is active nowhere: {', '.join(said)}.", "See relevo status.")


def ask_peer(
    key: bytes, addresses: Iterable[str], port: int, order: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """Send an order to a server, by the first of its addresses that answers.

    Returns:
        The answer, or None and why there is none.

    Raises:
        Refused: the server says why not.
        RelevoError: it broke off, or what answers cannot be trusted.
    """
    body, why = msgspec.json.encode(_sealed(key, order)), "does not answer"
    for address in addresses:
        field, nonce = remote.sign(key, body, int(time.time()))
        connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_S)
        try:
            connection.connect()
        except OSError:
            continue
        try:
            connection.request("POST", f"/{'/'.join(remote.PLACE)}", body, {remote.FIELD: field})
            response = connection.getresponse()
            told = response.read(ANSWER_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise RelevoError(
                f"{address} broke off; the order may have been followed or not ({error}).", "Look with list."
            ) from error
        finally:
            connection.close()
        return _judged(key, nonce, response, told, address)
    return None, why


def _sealed(key: bytes, order: dict[str, Any]) -> dict[str, Any]:
    """An order as it may cross a network: an NT hash is worth as much as the password."""
    return {**order, "nt": nt.seal(key, order["nt"])} if order.get("nt") else order


def _judged(
    key: bytes, nonce: str, response: http.client.HTTPResponse, told: bytes, address: str
) -> tuple[dict[str, Any] | None, str]:
    if not remote.is_answer(key, nonce, response.status, told, response.getheader(remote.ANSWER_FIELD, "")):
        if response.status == _UNAVAILABLE:
            return None, "does not have the volume"
        raise AnswerUnsigned(
            f"{address} does not accept orders signed with this server's key, or is another program.",
            "Are authkeys and clock the same on both servers?",
        )
    answer = msgspec.json.decode(told, type=dict[str, Any])
    if response.status != http.client.OK:
        raise Refused(str(answer.get("error", "")), str(answer.get("what", "")))
    return answer, ""
