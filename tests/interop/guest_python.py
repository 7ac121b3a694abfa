"""A disk for the guest with this Python, its libraries and this project: `/py` once it is mounted there.

Made with mke2fs from copies, so nothing has to be mounted here. Once the libraries of /py/lib are among the guest's
own, the interpreter there needs no variable: it finds its own modules and the project beside itself.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import relevo

SIZE = "400M"
_STDLIB_LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "ensurepip", "site-packages", "dist-packages", "config-*")
_SITE_LEFT_OUT = ("mypy*", "ruff*", "hypothesis*", "*pytest*", "pip*", "setuptools*", "playwright*", "*.pth", "tests")


def make_disk(path: pathlib.Path, programs: pathlib.Path) -> None:
    """Make the disk at `path`; the files of the folder `programs` lie in /py/app there, beside the project."""
    root = path.with_suffix(".tree")
    try:
        _fill(root, programs)
        subprocess.run(
            ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(path), SIZE],
            check=True,
            capture_output=True,
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _fill(root: pathlib.Path, programs: pathlib.Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (root / "bin").mkdir(parents=True)
    shutil.copy(pathlib.Path(sys.executable).resolve(), root / "bin" / "python3")
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        root / "lib" / version,
        ignore=shutil.ignore_patterns(*_STDLIB_LEFT_OUT),
        ignore_dangling_symlinks=True,
    )
    app = root / "lib" / version / "site-packages"
    shutil.copytree(sysconfig.get_path("purelib"), app, ignore=shutil.ignore_patterns(*_SITE_LEFT_OUT))
    package = pathlib.Path(relevo.__file__).parent
    shutil.copytree(package, app / "relevo", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    shutil.copytree(programs, app, dirs_exist_ok=True)
    (root / "app").symlink_to(app.relative_to(root))
    (app.parent / "dist-packages").symlink_to("site-packages")  # where Debian's own looks
    binaries = [root / "bin" / "python3", *root.glob("**/*.so")]
    for library in sorted(set(_libraries(binaries))):
        shutil.copy(library, root / "lib")


def _libraries(binaries: list[pathlib.Path]) -> list[str]:
    found = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    return re.findall(r"=> (/\S+) \(0x", found)
