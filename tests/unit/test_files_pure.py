"""Addresses, conditions, ranges, digests, languages: pure rules, tried with whatever hypothesis thinks of."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from files_bench import outcome
from relevo.files import conditions, digests, listing, texts, urls
from relevo.files.conditions import Verdict, judge, range_of, version_of
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.pages import document, render, views
from relevo.files.volume import Handle, Volume

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) <= 255
)
tricks = st.lists(
    st.sampled_from(
        ["..", ".", "%2e%2e", "%2e", "%2F", "%5c", "%00", "a", "out", "in", "file", "loop", "", "%2e%2e%2f"]
    ),
    max_size=6,
)
VERSION = version_of(10, 1_700_000_000_123_456_789, 1000)


@given(st.lists(names, max_size=5), st.booleans())
def test_addresses_round_trip(parts: list[str], folder: bool) -> None:
    place = urls.parse_path(urls.url_of(tuple(parts), folder=folder))
    assert place.names == tuple(parts)
    assert place.slash == (folder or not parts)


@given(st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
@example("/%2e%2e/x")
@example("/a%2fb")
@example("/\udcff")
def test_any_path_is_plain_names_or_refused(path: str) -> None:
    place, status = outcome(lambda: urls.parse_path("/" + path))
    assert status in {200, 400, 414}
    for name in place.names if place else ():
        raw = os.fsencode(name)
        assert raw not in {b"", b".", b".."}
        assert len(raw) <= 255
        assert not set(b"/\0") & set(raw)


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    """A tree full of links, and a secret beside the root."""
    base = tmp_path_factory.mktemp("maze")
    root = base / "root"
    (root / "in").mkdir(parents=True)
    (base / "file").write_text("secret")
    (base / "a").mkdir()
    (base / "a/file").write_text("secret")
    (root / "file").write_text("public")
    (root / "in/file").write_text("public")
    (root / "out").symlink_to(base)
    (root / "in/out").symlink_to("../..")
    (root / "a").symlink_to("../file")
    (root / "loop").symlink_to("loop")
    volume = Volume(root)
    volume.open()
    yield volume
    volume.close()
    assert volume.open_descriptors() == []


@settings(max_examples=500, deadline=None)
@given(parts=tricks)
@example(parts=["in", "file"])
def test_no_path_leads_outside(maze: Volume, parts: list[str]) -> None:
    with contextlib.suppress(FilesError, OSError):
        found = maze.open_file(urls.parse_path("/" + "/".join(parts)).names)
        if isinstance(found, Handle):
            assert os.pread(found.fd, 100, 0) == b"public"
            found.close()
            return
    assert parts != ["in", "file"]


@given(st.integers(0, 2000) | st.none(), st.integers(0, 2000) | st.none())
def test_ranges_against_slices(first: int | None, last: int | None) -> None:
    data = bytes(range(250)) * 4
    field = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    part, status = outcome(lambda: range_of({"Range": field}, VERSION))
    if status == 416:
        assert (first is not None and first >= 1000) or (first is None and last == 0)
        return
    if part is None:
        assert (first is None and last is None) or (first is not None and last is not None and last < first)
        return
    expected = data[-last:] if first is None and last else data[first : None if last is None else last + 1]
    assert data[part[0] : part[0] + part[1]] == expected


@given(st.text(max_size=60))
def test_any_range_field_is_answered(field: str) -> None:
    part, status = outcome(lambda: range_of({"Range": field}, VERSION))
    assert status in {200, 416}
    assert part is None or 0 <= part[0] < part[0] + part[1] <= 1000


@pytest.mark.parametrize(
    ("method", "headers", "verdict"),
    [
        ("GET", {}, Verdict.PROCEED),
        ("GET", {"If-Match": VERSION.etag}, Verdict.PROCEED),
        ("GET", {"If-Match": f'"x", {VERSION.etag}'}, Verdict.PROCEED),
        ("GET", {"If-Match": f"W/{VERSION.etag}"}, Verdict.FAILED),
        ("PUT", {"If-Match": '"x"'}, Verdict.FAILED),
        ("PUT", {"If-None-Match": "*"}, Verdict.FAILED),
        ("GET", {"If-None-Match": "*"}, Verdict.NOT_MODIFIED),
        ("HEAD", {"If-None-Match": f"W/{VERSION.etag}"}, Verdict.NOT_MODIFIED),
        ("GET", {"If-None-Match": '"x"', "If-Modified-Since": "Fri, 31 Dec 2100 00:00:00 GMT"}, Verdict.PROCEED),
        ("GET", {"If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, Verdict.NOT_MODIFIED),
        ("GET", {"If-Modified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, Verdict.PROCEED),
        ("GET", {"If-Unmodified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, Verdict.FAILED),
        ("PUT", {"If-Unmodified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, Verdict.PROCEED),
        ("GET", {"If-Modified-Since": "yesterday"}, Verdict.PROCEED),
    ],
)
def test_conditions(method: str, headers: dict[str, str], verdict: Verdict) -> None:
    assert judge(method, headers, VERSION) is verdict


def test_conditions_without_a_file() -> None:
    assert judge("PUT", {"If-None-Match": "*"}, None) is Verdict.PROCEED
    assert judge("PUT", {"If-Match": "*"}, None) is Verdict.FAILED


@given(st.binary(min_size=32, max_size=32))
def test_digest_fields_round_trip(digest: bytes) -> None:
    assert digests.parse(digests.field(digest)) == digest
    assert digests.parse(f"md5=:YWJj:, {digests.field(digest)}") == digest


def test_digest_fields() -> None:
    one, other = (digests.field(hashlib.sha256(data).digest()) for data in (b"1", b"2"))
    for damaged in ("sha-256=abc", "sha-256=:abc:", "sha-256=:YWJj:", "sha-256"):
        with pytest.raises(FilesError):
            digests.parse(damaged)
    assert digests.parse("sha-512=:YWJj:") is None
    with pytest.raises(FilesError):
        digests.announced({"Content-Digest": one, "Repr-Digest": other})
    assert digests.wanted({"Want-Repr-Digest": "sha-512=3, sha-256=10"})
    assert not digests.wanted({"Want-Repr-Digest": "sha-256=0"})
    assert not digests.wanted({"Want-Repr-Digest": "unixsum=1"})


@pytest.mark.parametrize(
    ("field", "language"),
    [
        ("", "en"),
        ("es", "es"),
        ("es-MX,es;q=0.9,en;q=0.8", "es"),
        ("en-GB,en;q=0.9,es;q=0.8", "en"),
        ("fr, de;q=0.9, es;q=0.1", "es"),
        ("fr", "en"),
        ("es;q=0", "en"),
        ("*", "en"),
        ("es;q=1.2.3,,;;", "en"),
    ],
)
def test_languages(field: str, language: str) -> None:
    assert texts.choose(field) == language


def test_every_sentence_is_there_in_both_languages() -> None:
    import string

    for code, (english, spanish) in texts.TEXTS.items():
        fields = [{name for _, name, _, _ in string.Formatter().parse(line) if name} for line in (english, spanish)]
        assert fields[0] == fields[1], code
        assert english
        assert spanish


def entry(name: str, *, folder: bool = False, size: int = 0, mtime: int = 0) -> Entry:
    return Entry(name, folder, size, mtime, 1)


def test_sorting() -> None:
    entries = [entry("b10"), entry("B2", size=5), entry("ábaco", mtime=9), entry("z", folder=True), entry("a1b")]
    assert [one.name for one in listing.sort(entries, "name", descending=False)] == ["z", "a1b", "ábaco", "B2", "b10"]
    assert [one.name for one in listing.sort(entries, "name", descending=True)] == ["z", "b10", "B2", "ábaco", "a1b"]
    assert [one.name for one in listing.sort(entries, "size", descending=True)][1] == "B2"
    assert [one.name for one in listing.sort(entries, "date", descending=True)][1] == "ábaco"


@given(st.lists(names, max_size=10))
def test_sorting_takes_any_name(parts: list[str]) -> None:
    found = listing.sort([entry(name) for name in parts], "name", descending=False)
    assert sorted(one.name for one in found) == sorted(parts)


@given(names, st.sampled_from(["en", "es"]))
def test_no_name_breaks_the_page(name: str, language: str) -> None:
    from html.parser import HTMLParser

    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[str, tuple[str, ...]]] = []
            self.links: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.append((tag, tuple(key for key, _ in attrs)))
            self.links += [value or "" for key, value in attrs if key == "href"]

    def tags(of: str) -> Tags:
        found = [entry(of), entry(of, folder=True)]
        view = views.View((of,), found, 0, 2, 1, "name", False, language, {"lang": of})  # noqa: FBT003
        both = (
            ("listing.html", {**views.listing(view), "quotas": []}),
            ("delete.html", views.deletion((of, of), entry(of), language, keeps=True)),
        )
        parser = Tags()
        parser.feed("".join(document(name, language, {"lang": of}, "nonce", **context) for name, context in both))
        return parser

    got = tags(name)
    assert got.seen == tags("plain").seen
    own = [link for link in got.links if link.startswith("/") and not link.startswith("/.relevo/")]
    assert all(urls.parse_path(urls.split_target(link)[0]).names in {(), (name,), (name, name)} for link in own)


def test_policy_lets_only_our_scripts_run() -> None:
    nonce = render.new_nonce()
    assert nonce != render.new_nonce()
    policy = render.policy(nonce)
    assert f"script-src 'nonce-{nonce}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_versions_differ() -> None:
    assert len({conditions.version_of(1, 2, 3).etag, conditions.version_of(12, 3, 0).etag, VERSION.etag}) == 3
