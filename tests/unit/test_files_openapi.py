"""The description of the HTTP API (docs/internals/files-api.json) against the service: what it answers is in there."""

from __future__ import annotations

import asyncio
import base64
import pathlib
import re
from typing import Any

import msgspec
import pytest
import yarl

from files_bench import Bench, bench

ROOT = pathlib.Path(__file__).parents[2]
API: dict[str, Any] = msgspec.json.decode((ROOT / "docs/internals/files-api.json").read_bytes())
METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")
JSON = {"Accept": "application/json"}
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}
ID = "0" * 32
PLACE = "path " + base64.b64encode(b"tus").decode()
REQUESTS: tuple[tuple[str, str, dict[str, str], bytes, int], ...] = (
    ("GET", "/", JSON, b"", 200),
    ("GET", "/", {"Accept": "text/html"}, b"", 200),
    ("GET", "/file", {}, b"", 200),
    ("GET", "/file", {"Range": "bytes=1-2"}, b"", 206),
    ("GET", "/file", {"If-None-Match": "*"}, b"", 304),
    ("GET", "/file", {"If-Match": '"0"'}, b"", 412),
    ("GET", "/file", {"Range": "bytes=99-"}, b"", 416),
    ("GET", "/folder", {}, b"", 308),
    ("GET", "/none", JSON, b"", 404),
    ("GET", "/%2F", JSON, b"", 400),
    ("GET", "/link", JSON, b"", 403),
    ("GET", "/" + "x" * 300, JSON, b"", 414),
    ("HEAD", "/file", {}, b"", 200),
    ("PUT", "/new", {}, b"1", 201),
    ("PUT", "/file", {}, b"1", 204),
    ("PUT", "/folder", JSON, b"1", 409),
    ("PUT", "/new", {"Repr-Digest": "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:", **JSON}, b"1", 422),
    ("PUT", "/file", {"If-None-Match": "*", **JSON}, b"1", 412),
    ("DELETE", "/file", {}, b"", 204),
    ("DELETE", "/full", JSON, b"", 409),
    ("POST", "/?action=folder", {**JSON, "Content-Type": "application/x-www-form-urlencoded"}, b"name=made", 201),
    ("POST", "/?action=folder", {"Content-Type": "application/x-www-form-urlencoded"}, b"name=other", 303),
    ("POST", "/?action=folder", JSON, b"name=made", 415),
    ("GET", "/.relevo/health", {}, b"", 200),
    ("GET", "/.relevo/bin/", JSON, b"", 200),
    ("POST", "/.relevo/tus/", {**BYTES, "Upload-Length": "3", "Upload-Metadata": PLACE}, b"abc", 201),
    ("POST", "/.relevo/tus/", {**BYTES, **JSON}, b"abc", 400),
    ("HEAD", f"/.relevo/tus/{ID}", TUS, b"", 404),
    ("PATCH", f"/.relevo/tus/{ID}", {**BYTES, "Upload-Offset": "0", **JSON}, b"abc", 404),
    ("DELETE", f"/.relevo/tus/{ID}", {**TUS, **JSON}, b"", 404),
)


def described(path: str) -> dict[str, Any]:
    """The description's part for a path: the template with the most fixed words."""
    plain = path.partition("?")[0]
    fitting = [one for one in API["paths"] if re.fullmatch(re.sub(r"\\{[a-z]+\\}", ".+", re.escape(one)), plain)]
    found: dict[str, Any] = API["paths"][max(fitting, key=lambda one: len(re.sub(r"\{[a-z]+\}", "", one)))]
    return found


def contents(answer: dict[str, Any]) -> dict[str, Any]:
    """The kinds of content of a described answer."""
    if "$ref" in answer:
        answer = API["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = answer.get("content", {})
    return found


def check(method: str, path: str, status: int, kind: str, length: int) -> None:
    answers = described(path)[method.lower()]["responses"]
    assert str(status) in answers, f"{method} {path} answers {status}, which is not described"
    kinds = contents(answers[str(status)])
    if length and method != "HEAD":
        assert "*/*" in kinds or kind.partition(";")[0] in kinds, f"{method} {path} {status} answers {kind}"


def test_what_is_answered_is_described(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for name in ("folder", "full"):
            (it.root / name).mkdir()
        (it.root / "full/x").touch()
        (it.root / "link").symlink_to("file")
        for method, path, headers, data, expected in REQUESTS:
            (it.root / "file").write_bytes(b"here")
            url = it.url.rstrip("/") + path
            async with it.http.request(
                method, yarl.URL(url, encoded=True), headers=headers, data=data or None, allow_redirects=False
            ) as answer:
                body = await answer.read()
                assert answer.status == expected, (method, path, answer.status, body)
                check(method, path, answer.status, answer.headers.get("Content-Type", ""), len(body))

    run(tmp_path, story)


@pytest.mark.parametrize("template", [one for one in API["paths"] if one != "/"])  # the root is a path like others
def test_methods(tmp_path: pathlib.Path, template: str) -> None:
    """Methods that are not described are answered 405, those that are described never."""

    async def story(it: Bench) -> None:
        for method in METHODS:
            url = it.url.rstrip("/") + template.replace("{path}", "some").replace("{id}", ID)
            async with it.http.request(method, url, headers={**TUS, **JSON}, allow_redirects=False) as answer:
                refused = answer.status == 405
            assert refused != (method.lower() in API["paths"][template]), (method, template, answer.status)

    run(tmp_path, story)


def run(folder: pathlib.Path, story: Any) -> None:
    async def main() -> None:
        async with bench(folder) as it:
            await story(it)

    asyncio.run(main())
