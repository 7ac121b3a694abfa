"""Accounts for the tests: a family of users and shares, and a running service that knows them."""

from __future__ import annotations

import functools
from typing import Any

import aiohttp

from files_bench import Bench
from relevo.files.accounts import orders, passwords

PASSWORD = "correct horse"


@functools.cache
def hashed(password: str = PASSWORD) -> str:
    """One argon2 for all tests."""
    return passwords.hash_of(password)


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    """The fields of a request by somebody."""
    return {"Authorization": aiohttp.encode_basic_auth(name, password)}


async def order(it: Bench, what: str, /, **arguments: Any) -> dict[str, Any]:
    """An order by root on the server."""
    return await orders.execute(it.service, orders.parse({"order": what, **arguments}), None)


async def family(it: Bench) -> None:
    """root is administrator; ana writes in /docs by her group, leo reads there; /docs/secret is ana's alone."""
    await order(it, "user-add", name="root", password=hashed(), admin=True)
    for name in ("ana", "leo", "eva"):
        await order(it, "user-add", name=name, password=hashed())
    await order(it, "group-add", name="staff")
    await order(it, "group-member", name="staff", user="ana", member=True)
    for name, path in (("docs", "docs"), ("secret", "docs/secret"), ("open", "open")):
        await order(it, "share-add", name=name, path=path)
    await order(it, "share-permit", name="docs", holder="@staff", level="write")
    await order(it, "share-permit", name="docs", holder="leo", level="read")
    await order(it, "share-permit", name="secret", holder="ana", level="manage")
    await order(it, "share-set", name="open", public=True)
