"""WebDAV's rules without a server: the If field, addresses in fields, XML from strangers, the table of locks."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from files_bench import outcome
from relevo.files import limits
from relevo.files.dav import ask, ifheader, markup
from relevo.files.dav.ifheader import Condition, Group, State
from relevo.files.errors import FilesError
from relevo.files.locks import Lock, Locks, new_token, submitting

TOKENS = ("opaquelocktoken:1", "urn:uuid:2", "DAV:no-lock")
ETAGS = ('"a-b"', 'W/"a"', '""')
TAGS = ("/dav/a", "http://x/dav/b%20c")
conditions = st.one_of(
    st.builds(Condition, st.booleans(), token=st.sampled_from(TOKENS)),
    st.builds(Condition, st.booleans(), etag=st.sampled_from(ETAGS)),
)


@st.composite
def fields(draw: st.DrawFn) -> tuple[Group, ...]:
    tagged = draw(st.booleans())
    tags = st.sampled_from(TAGS) if tagged else st.just("")
    one = st.builds(Group, tags, st.lists(conditions, min_size=1, max_size=4).map(tuple))
    return tuple(draw(st.lists(one, min_size=1, max_size=4)))


def written(groups: tuple[Group, ...], blank: str) -> str:
    """A field as a client writes it; a tag is repeated only where it changes."""
    text, before = "", ""
    for group in groups:
        if group.tag and group.tag != before:
            text += f"{blank}<{group.tag}>{blank}"
        before = group.tag
        states = [
            ("" if one.wanted else "Not ") + (f"<{one.token}>" if one.token else f"[{one.etag}]")
            for one in group.conditions
        ]
        text += "(" + blank.join(states) + ")" + blank
    return text


@given(fields(), st.sampled_from(["", " ", " \t "]))
def test_if_field_is_read_as_it_was_written(groups: tuple[Group, ...], blank: str) -> None:
    assert ifheader.parse(written(groups, blank)) == groups
    assert ifheader.tokens(groups) == {one.token for group in groups for one in group.conditions} - {""}


@given(st.one_of(st.text(), st.text(alphabet='()<>[]"Not abc:/,W')))
@example("(<a>) <b> (<c>)")
@example("<b> (<c>) (<a>)")
@example("()")
@example("(Nothing)")
@example("<a>")
def test_any_other_field_is_refused_or_means_what_it_says(field: str) -> None:
    groups, status = outcome(lambda: ifheader.parse(field))
    if groups is None:
        assert status == 400
    else:
        assert ifheader.parse(written(groups, " ")) == groups


@given(fields(), st.sampled_from(["", *ETAGS]), st.frozensets(st.sampled_from(TOKENS)))
def test_if_field_holds_when_one_list_is_true(groups: tuple[Group, ...], etag: str, held: frozenset[str]) -> None:
    states = {"": State(etag, held), TAGS[0]: State("", held), TAGS[1]: State()}

    def true(one: Condition, state: State) -> bool:
        found = one.token in state.tokens if one.token else state.etag != "" and one.etag == state.etag
        return found if one.wanted else not found

    wanted = [all(true(one, states[group.tag]) for one in group.conditions) for group in groups]
    assert ifheader.holds(groups, states.__getitem__) is any(wanted)


def test_if_field_has_a_bound() -> None:
    many = "(" + "<a>" * (limits.DAV_IF_MAX_CONDITIONS + 1) + ")"
    assert outcome(lambda: ifheader.parse(many))[1] == 400


def request(**headers: str) -> Any:
    return cast("Any", types.SimpleNamespace(headers={"Host": "files.example", **headers}))


@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(["..", ".", "%2e%2e", "a", "%2F", "%00", ".relevo", "lost+found", "dav", "á", "\\", "%5c"])
        ).map(lambda parts: "/dav/" + "/".join(parts)),
    )
)
@example("/dav/../etc/passwd")
@example("http://files.example/dav/%2e%2e/etc")
@example("//files.example/dav/a")
@example("http://ana@files.example:80/dav/a#b")
@example("http://files.example/dav/.relevo/accounts/accounts.json")
def test_no_destination_leads_outside(text: str) -> None:
    place, status = outcome(lambda: ask.destination(request(Destination=text)))
    if place is None:
        assert status in {400, 403, 414, 502}
        return
    assert not place.reserved
    for name in place.names:
        assert name not in {"", ".", ".."}
        assert "/" not in name
        assert "\0" not in name


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("/dav/a/b%20c", ("a", "b c")),
        ("http://files.example/dav/á", ("á",)),
        ("https://FILES.example:443/dav/x/", ("x",)),
        ("http://other.example/dav/x", None),
        ("http://files.example/x", None),
        ("/davx/x", None),
        ("ftp://files.example/dav/x", None),
    ],
)
def test_destinations(uri: str, names: tuple[str, ...] | None) -> None:
    place, status = outcome(lambda: ask.destination(request(Destination=uri)))
    assert (place.names if place is not None else None, status) == (names, 502 if names is None else 200)


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("", limits.LOCK_DEFAULT_S),
        ("Second-30", 30),
        ("Infinite, Second-4100000000", limits.LOCK_MAX_S),
        ("Second-4100000000", limits.LOCK_MAX_S),
        ("Second-0", 1),
        ("Extend-5, Second-7", 7),
    ],
)
def test_timeouts_are_bounded(field: str, seconds: int) -> None:
    assert ask.timeout_s(request(Timeout=field)) == seconds


BOMB = b"""<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<propfind xmlns="DAV:"><prop><x>&b;</x></prop></propfind>"""
OUTSIDE = b'<!DOCTYPE p SYSTEM "file:///etc/passwd"><propfind xmlns="DAV:"><allprop/></propfind>'


@pytest.mark.parametrize("body", [BOMB, OUTSIDE, b"<!DOCTYPE a []><a/>"])
def test_document_types_are_refused(body: bytes) -> None:
    with pytest.raises(FilesError) as refused:
        markup.parse(body)
    assert (refused.value.status, refused.value.code) == (400, "dav_doctype")


def test_xml_has_bounds_inside() -> None:
    deep = limits.DAV_XML_DEPTH_MAX + 1
    for body in (b"<a>" * deep + b"</a>" * deep, b"<a>" + b"<b/>" * limits.DAV_XML_ELEMENTS_MAX + b"</a>"):
        assert outcome(lambda body=body: markup.parse(body))[1] == 400  # type: ignore[misc]


@given(st.one_of(st.binary(), st.text().map(str.encode), st.text(alphabet="<>/a:='\" &;xmlnsD").map(str.encode)))
@example(b"<a xmlns:p=''/>")
@example(b"<a:b/>")
@example(b'<?xml version="1.0" encoding="utf-16"?><a/>')
@example(b"<?xml version='1.0' encoding='nonsense'?><a/>")
@example(b"<a>\x00</a>")
def test_any_body_is_read_or_refused_with_one_answer(body: bytes) -> None:
    for read in (markup.propfind, markup.propertyupdate, markup.lockinfo):
        assert outcome(lambda read=read: read(body))[1] in {200, 400, 422}  # type: ignore[misc]


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_a_client_says_comes_back_as_xml(space: str, content: str) -> None:
    """An element that was accepted, put into an answer, is the same element for whoever reads the answer."""
    source = markup.element((space, "x"), markup.words(content))
    body = f'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>{source}</D:prop></D:set></D:propertyupdate>'
    steps, status = outcome(lambda: markup.propertyupdate(body.encode("utf-8", "replace")))
    if steps is None:
        assert status == 400  # a namespace with characters that XML does not have
        return
    assert steps[0].xml is not None
    answer = markup.multistatus(markup.response("/dav/" + content, [("200 OK", steps[0].xml)]))
    found = markup.parse(answer).find(".//{DAV:}prop")
    assert found is not None
    assert markup.split(found[0].tag) == steps[0].name
    assert (found[0].text or "") == (markup.parse(f"<a>{markup.words(content)}</a>".encode()).text or "")


# --- locks ------------------------------------------------------------------------------------------------------------

names = st.lists(st.sampled_from("ab"), max_size=3).map(tuple)
lock_kinds = st.tuples(names, st.booleans(), st.booleans())


def made(path: tuple[str, ...], *, deep: bool = False, shared: bool = False, ends_s: float = 10.0) -> Lock:
    return Lock(new_token(), path, deep, shared, "", "", 10, ends_s)


@given(st.lists(lock_kinds, max_size=8))
def test_locks_that_hold_together_never_contradict(wanted: list[tuple[tuple[str, ...], bool, bool]]) -> None:
    table, held = Locks(lambda: 0.0), []
    for path, deep, shared in wanted:
        lock = made(path, deep=deep, shared=shared)
        if outcome(lambda lock=lock: table.add(lock))[1] == 200:  # type: ignore[misc]
            held.append(lock)
    for one in held:
        for other in held:
            if one is not other and not (one.shared and other.shared):
                assert not one.covers(other.names)


@given(st.lists(lock_kinds, min_size=1, max_size=6), names, st.booleans(), st.booleans(), st.data())
def test_a_change_needs_a_token_for_everything_it_touches(
    wanted: list[tuple[tuple[str, ...], bool, bool]],
    path: tuple[str, ...],
    member: bool,
    tree: bool,
    data: st.DataObject,
) -> None:
    table, held = Locks(lambda: 0.0), []
    for place, deep, shared in wanted:
        lock = made(place, deep=deep, shared=shared)
        if outcome(lambda lock=lock: table.add(lock))[1] == 200:  # type: ignore[misc]
            held.append(lock)
    known = data.draw(st.frozensets(st.sampled_from([lock.token for lock in held])))
    touched = [path, *([path[:-1]] if member and path else [])]
    touched += [lock.names for lock in held if tree and lock.names[: len(path)] == path]
    free = all(
        any(lock.token in known for lock in covering)
        for covering in ([lock for lock in held if lock.covers(place)] for place in touched)
        if covering
    )
    with submitting(known):
        assert outcome(lambda: table.require(path, member=member, tree=tree))[1] == (200 if free else 423)


def test_locks_end_and_are_refreshed() -> None:
    now = [0.0]
    table = Locks(lambda: now[0])
    lock = made(("a",))
    table.add(lock)
    assert outcome(lambda: table.require(("a",)))[1] == 409  # no program of WebDAV: it is told of a conflict
    now[0] = 9.0
    table.put(dataclasses.replace(lock, ends_s=19.0))
    now[0] = 18.0
    assert table.left_s(table.covering(("a",))[0]) == 1
    now[0] = 19.0
    table.require(("a",))
    table.add(made(("a",), ends_s=30.0))
    assert table.expired() == [lock.token]
    assert table.forget(()) != []
    table.require(("a",))
