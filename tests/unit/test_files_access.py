"""Who may do what: the pure decision, the changes, the tokens, the throttle."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files_bench import outcome
from relevo.files.accounts import changes, remote, store, throttle, tokens
from relevo.files.accounts.access import ANONYMOUS, Kind, Level, Policy, Verb, Who, below, decide
from relevo.files.accounts.model import Accounts, Share, ShareLink
from relevo.files.errors import FilesError

NAMES = ("a", "b", "á", "á", "A")  # the third and fourth look alike
LEVELS = ("none", "read", "write", "manage")
USERS = ("root", "ana", "leo")
paths = st.lists(st.sampled_from(NAMES), max_size=4).map(tuple)
whos = st.sampled_from([ANONYMOUS, *(Who(Kind.USER, name) for name in (*USERS, "nobody"))])


def people() -> Accounts:
    accounts = changes.add_user(store.new(), "root", admin=True)
    for name in USERS[1:]:
        accounts = changes.add_user(accounts, name)
    accounts = changes.add_group(accounts, "staff")
    return changes.set_member(accounts, "staff", "ana", member=True)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    accounts = people()
    for number, path in enumerate(draw(st.lists(paths, max_size=4, unique=True))):
        grants = draw(st.dictionaries(st.sampled_from(["ana", "leo", "@staff"]), st.sampled_from(LEVELS)))
        public = draw(st.booleans())
        share = Share(name=f"s{number}", path=path, grants=grants, public=public)
        accounts = changes.set_share(changes.add_share(accounts, share.name, path), share.name, public=public)
        for holder, level in grants.items():
            accounts = changes.permit(accounts, share.name, holder, level)
    return Policy(accounts)


def expected(policy: Policy, name: str, path: tuple[str, ...]) -> Level:
    """The rule, written down the other way round: look at every share, take the longest that is above."""
    assert policy.accounts is not None
    if name == "root":
        return Level.MANAGE
    above = [share for share in policy.accounts.shares.values() if below(path, share.path)]
    if not above:
        return Level.NONE
    share = max(above, key=lambda item: len(item.path))
    least = Level.READ if share.public else Level.NONE
    if name not in USERS:
        return least
    if name in share.grants:
        return max(least, Level[share.grants[name].upper()])
    return max(least, Level[share.grants.get("@staff", "none").upper()] if name == "ana" else Level.NONE)


@given(policies(), whos, paths)
def test_the_nearest_share_decides(policy: Policy, who: Who, path: tuple[str, ...]) -> None:
    level = expected(policy, who.name, path)
    assert decide(policy, who, Verb.READ, path).allowed == (level >= Level.READ)
    assert decide(policy, who, Verb.MANAGE, path).allowed == (level >= Level.MANAGE)
    if decide(policy, who, Verb.WRITE, path).allowed:
        assert level >= Level.WRITE
    if decide(policy, who, Verb.REMOVE, path).allowed:
        assert level >= Level.WRITE
        assert not policy.inside(path)
    if decide(policy, who, Verb.READ_TREE, path).allowed:
        assert policy.accounts is not None
        inside = [share for share in policy.accounts.shares.values() if below(share.path, path)]
        assert all(expected(policy, who.name, share.path) >= Level.READ for share in inside)


@given(policies(), whos, paths)
def test_a_folder_shows_only_the_way_to_what_may_be_read(policy: Policy, who: Who, path: tuple[str, ...]) -> None:
    seen = decide(policy, who, Verb.SEE, path).allowed
    below_it = (path + rest for count in range(5) for rest in itertools.product(NAMES, repeat=count))
    readable = any(expected(policy, who.name, place) >= Level.READ for place in itertools.islice(below_it, 800))
    assert seen == readable


@given(policies(), paths, paths, st.sampled_from(["read", "drop"]), st.sampled_from(USERS), st.sampled_from(Verb))
def test_a_link_opens_nothing_else(
    policy: Policy, opened: tuple[str, ...], path: tuple[str, ...], kind: str, creator: str, verb: Verb
) -> None:
    link = ShareLink(id="l", digest="d", path=opened, kind=kind, creator=creator, created_s=0)  # type: ignore[arg-type]
    if decide(policy, Who(Kind.LINK, "l", link), verb, path).allowed:
        assert below(path, opened)
        assert decide(policy, Who(Kind.USER, creator), verb, path).allowed
        assert decide(policy, Who(Kind.USER, creator), Verb.MANAGE, path).allowed
        assert verb in ({Verb.WRITE} if kind == "drop" else {Verb.SEE, Verb.LIST, Verb.READ, Verb.READ_TREE})


@given(paths, whos, st.sampled_from(Verb))
def test_without_accounts_everyone_may_do_everything(path: tuple[str, ...], who: Who, verb: Verb) -> None:
    assert decide(Policy(None), who, verb, path).allowed


def test_the_work_area_belongs_to_nobody() -> None:
    for verb in Verb:
        assert decide(Policy(people()), Who(Kind.USER, "root"), verb, (".relevo", "accounts")).why == "reserved"


def test_changes_that_are_refused() -> None:
    accounts = people()
    cases = {
        "first_admin": lambda: changes.add_user(store.new(), "ana"),
        "last_admin": lambda: changes.remove_user(accounts, "root"),
        "user_exists": lambda: changes.add_user(accounts, "ana"),
        "account_name": lambda: changes.add_user(accounts, "Аna"),
        "no_user": lambda: changes.permit(changes.add_share(accounts, "s", ("x",)), "s", "eva", "read"),
        "share_taken": lambda: changes.add_share(changes.add_share(accounts, "s", ("x",)), "t", ("x",)),
        "reserved": lambda: changes.add_share(accounts, "s", (".relevo", "accounts")),
    }
    for code, change in cases.items():
        with pytest.raises(FilesError) as refused:
            change()
        assert refused.value.code == code


def test_who_is_removed_leaves_no_permission_and_no_number() -> None:
    accounts = changes.permit(changes.add_share(people(), "s", ("x",)), "s", "ana", "write")
    uid = accounts.users["ana"].uid
    again = changes.add_user(changes.remove_user(accounts, "ana"), "ana")
    assert again.users["ana"].uid > uid
    assert not decide(Policy(again), Who(Kind.USER, "ana"), Verb.READ, ("x",)).allowed
    assert again.groups["staff"].members == ()


def test_sessions_end() -> None:
    accounts = people()
    word, session = tokens.begin(Policy(accounts), "ana", 1000)
    assert tokens.session_of(Policy(accounts), word, 1001) == session
    later = {
        "time": (Policy(accounts), 1000 + tokens.SESSION_S),
        "password": (Policy(changes.set_password(accounts, "ana", "x")), 1001),
        "disabled": (Policy(changes.set_user(accounts, "ana", enabled=False)), 1001),
        "logged out": (Policy(changes.revoke(accounts, session.id, session.ends_s, 1001)), 1001),
        "removed": (Policy(changes.remove_user(accounts, "ana")), 1001),
        "another key": (Policy(people()), 1001),
    }
    for why, (policy, now_s) in later.items():
        assert tokens.session_of(policy, word, now_s) is None, why


@given(st.text(max_size=80))
def test_no_word_but_a_signed_one(text: str) -> None:
    policy = Policy(people())
    word, _ = tokens.begin(policy, "ana", 1000)
    assert tokens.session_of(policy, text, 1000) is None
    assert tokens.session_of(policy, word + text, 1000) is None or text == ""
    assert tokens.session_of(policy, tokens.opened(policy, "x", "y", 1000), 1000) is None


def test_guessing_is_slow_and_does_not_lock_the_owner_out() -> None:
    it = throttle.Throttle()
    it.succeeded("10.0.0.1", "ana")
    tries, now_s = 0, 0.0
    while now_s < 600:
        if it.wait_s("10.0.0.9", "ana", now_s) == 0:
            it.failed("10.0.0.9", "ana", now_s)
            tries += 1
        now_s += 0.5
    assert tries <= throttle.ADDRESS_TRIES + 600 / throttle.ADDRESS_REFILL_S + 1
    for number in range(200):
        it.failed(f"10.1.0.{number}", "ana", now_s)
    assert it.wait_s("10.2.0.1", "ana", now_s) > 0
    assert it.wait_s("10.0.0.1", "ana", now_s) == 0
    for number in range(10_000):
        it.failed(str(number), str(number), now_s)
    assert len(it._addresses._missing) <= throttle.KEPT_MAX


def test_an_order_counts_once_and_only_signed() -> None:
    key, body = remote.key_of("secret"), b"{}"
    desk = remote.Desk(key)
    field, nonce = remote.sign(key, body, 1000)
    attempts = [
        lambda: desk.check(field, b"{ }", 1000),
        lambda: desk.check(field, body, 1000 + remote.VALID_S + 1),
        lambda: desk.check(field.replace("1000", "1010"), body, 1010),
        lambda: remote.Desk(remote.key_of("other")).check(field, body, 1000),
        lambda: remote.Desk(None).check(field, body, 1000),
        lambda: desk.check("", body, 1000),
    ]
    assert all(outcome(attempt)[1] == 403 for attempt in attempts)
    assert outcome(lambda: desk.check(field, body, 1001)) == (nonce, 200)
    assert outcome(lambda: desk.check(field, body, 1001))[1] == 403
    signature = remote.sign_answer(key, nonce, 200, b"yes")
    assert remote.is_answer(key, nonce, 200, b"yes", signature)
    assert not remote.is_answer(key, nonce, 200, b"no", signature)
