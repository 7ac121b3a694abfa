"""Programs of others that speak WebDAV, with the file service: litmus, the tests of neon, and cadaver."""

from __future__ import annotations

import asyncio
import pathlib
import shutil

import pytest

from accounts_support import PASSWORD, family
from files_bench import Bench, bench

SUITES = 5
"""basic, copymove, props, locks, http"""


async def told(folder: pathlib.Path, *argv: str, typed: str = "") -> str:
    """What a program says, which must end well."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(typed.encode())
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.mark.skipif(shutil.which("litmus") is None, reason="litmus is not installed")
@pytest.mark.parametrize("accounts", [False, True])
def test_litmus_passes_whole(tmp_path: pathlib.Path, *, accounts: bool) -> None:
    async def main() -> None:
        async with bench(tmp_path) as it:
            if accounts:
                await family(it)
            where = [f"{it.url}dav/docs/", "ana", PASSWORD] if accounts else [f"{it.url}dav/"]
            said = await told(tmp_path, "litmus", "--keep-going", *where)
            assert said.count(" 0 failed. 100.0%") == SUITES, said
            assert "WARNING" not in said, said
            assert "skipped" not in said.lower(), said

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("cadaver") is None, reason="cadaver is not installed")
def test_cadaver_as_in_the_manual(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        (tmp_path / ".netrc").write_text(f'machine 127.0.0.1\nlogin ana\npassword "{PASSWORD}"\n')
        (tmp_path / "plan ñ.txt").write_text("plan\n")
        typed = """put "plan ñ.txt"
mkcol deep
move "plan ñ.txt" deep
lock "deep/plan ñ.txt"
propset "deep/plan ñ.txt" colour blue
propget "deep/plan ñ.txt" colour
put "plan ñ.txt" "deep/plan ñ.txt"
unlock "deep/plan ñ.txt"
copy deep again
ls again
get "again/plan ñ.txt" back
quit
"""
        said = await told(tmp_path, "cadaver", f"{it.url}dav/docs/", typed=typed)
        assert "failed" not in said, said
        assert "blue" in said
        assert (tmp_path / "back").read_text() == "plan\n"
        assert (it.root / "docs/deep/plan ñ.txt").read_text() == "plan\n"

    async def main() -> None:
        async with bench(tmp_path) as it:
            await family(it)
            await story(it)

    asyncio.run(main())
