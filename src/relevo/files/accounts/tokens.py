"""Signed words: sessions, tokens of forms, opened links. Pure; the key is the volume's, so both servers agree.

`KIND.PAYLOAD.SIGNATURE`: base64url of JSON, and of the HMAC-SHA256 over `KIND.PAYLOAD`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets

import msgspec

from relevo.files.accounts.access import Policy

SESSION_S = 12 * 3600
"""A session ends after this; using it does not lengthen it."""
LINK_S = SESSION_S
"""A link's password is asked for again after this: a large upload by one takes longer than an hour."""
TOKEN_MAX = 1024
_SESSION = "s1"
_LINK = "l1"


class Session(msgspec.Struct, frozen=True):
    """Somebody who logged in: user, the epoch of their password then, a random id, and when it ends (since 1970)."""

    user: str
    epoch: int
    id: str
    ends_s: int


class Opened(msgspec.Struct, frozen=True):
    """Somebody who knew a link's password, the hash of which was `password`."""

    link: str
    password: str
    ends_s: int


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _signed(key: str, kind: str, payload: msgspec.Struct) -> str:
    word = f"{kind}.{_text(msgspec.json.encode(payload))}"
    return f"{word}.{_text(hmac.digest(bytes.fromhex(key), word.encode(), 'sha256'))}"


def _payload(key: str, kind: str, token: str) -> bytes | None:
    if len(token) > TOKEN_MAX or not token.isascii():
        return None
    word, _, signature = token.rpartition(".")
    if not word.startswith(f"{kind}."):
        return None
    right = _text(hmac.digest(bytes.fromhex(key), word.encode(), "sha256"))
    if not hmac.compare_digest(right, signature):
        return None
    try:
        return _raw(word.partition(".")[2])
    except (binascii.Error, ValueError):
        return None


def begin(policy: Policy, user: str, now_s: float) -> tuple[str, Session]:
    """A new session of a user, and the word for it."""
    assert policy.accounts is not None, "there are accounts"
    session = Session(user, policy.accounts.users[user].epoch, secrets.token_hex(16), int(now_s) + SESSION_S)
    return _signed(policy.accounts.key, _SESSION, session), session


def session_of(policy: Policy, token: str, now_s: float) -> Session | None:
    """The session that a word stands for: signed here, not over, not logged out, the password unchanged; else None."""
    if policy.accounts is None or (raw := _payload(policy.accounts.key, _SESSION, token)) is None:
        return None
    try:
        session = msgspec.json.decode(raw, type=Session)
    except msgspec.DecodeError:
        return None
    user = policy.user(session.user)
    if user is None or user.epoch != session.epoch or session.ends_s <= now_s or session.id in policy.accounts.revoked:
        return None
    return session


def form_of(user: str, session: str) -> str:
    """What a form belongs to: a session, or a user whose browser sends the password with each request."""
    return session or f"basic:{user}"


def form_token(policy: Policy, session: str) -> str:
    """What a form carries, so that only a page of this session can send it."""
    assert policy.accounts is not None, "there are accounts"
    return _text(hmac.digest(bytes.fromhex(policy.accounts.key), f"form.{session}".encode(), "sha256"))


def is_form_token(policy: Policy, session: str, token: str) -> bool:
    """Whether a form comes from a page of this session."""
    return hmac.compare_digest(form_token(policy, session).encode(), token.encode("utf-8", "surrogateescape"))


def opened(policy: Policy, link: str, password: str, now_s: float) -> str:
    """The word for somebody who knew the password of a link."""
    assert policy.accounts is not None, "there are accounts"
    return _signed(policy.accounts.key, _LINK, Opened(link, _sum(policy, password), int(now_s) + LINK_S))


def has_opened(policy: Policy, link: str, password: str, token: str, now_s: float) -> bool:
    """Whether a word stands for having known the present password of a link."""
    if policy.accounts is None or (raw := _payload(policy.accounts.key, _LINK, token)) is None:
        return False
    try:
        found = msgspec.json.decode(raw, type=Opened)
    except msgspec.DecodeError:
        return False
    return found.link == link and found.ends_s > now_s and found.password == _sum(policy, password)


def _sum(policy: Policy, password: str) -> str:
    assert policy.accounts is not None, "there are accounts"
    return hmac.digest(bytes.fromhex(policy.accounts.key), b"pw." + password.encode(), "sha256").hex()[:32]
