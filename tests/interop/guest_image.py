"""A kernel and an initial RAM disk with the in-tree drbd 8.4, made from Debian packages for a QEMU guest.

Kept in a folder of the machine (`CACHE`, or what RELEVO_INTEROP_CACHE names), because the kernel's package is large;
made anew when the kernel's version or one of the guest's own files changes. Several runs at the same time share it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator

CACHE = pathlib.Path("/var/cache/relevo/interop")
GUEST_FILES = pathlib.Path(__file__).parent / "guest"
KERNEL_PACKAGE = "linux-image-amd64"
BUSYBOX_PACKAGE = "busybox-static"
TOOLS = ("dash", "dd", "mkfs.ext4", "e2fsck", "blkdiscard", "drbdmeta", "drbdadm", "drbdsetup", "lvm")
"""Programs of this machine that the guest gets, with the libraries that they need."""
DRBD_84_TOOLS = ("drbdadm-84", "drbdsetup-84")
"""What drbdadm calls when the module is of version 8.4."""
DRBD_TOOLS_FOLDER = pathlib.Path("/lib/drbd")
MODULES = (
    *("virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio", "virtio_pci", "virtio_blk"),
    *("failover", "net_failover", "virtio_net", "virtio_console", "virtio-rng"),
    *("crc32c_generic", "libcrc32c", "md5", "sha1_generic", "sha256_generic", "lru_cache", "drbd"),
    *("mbcache", "jbd2", "crc16", "ext4", "fuse", "loop", "dm-mod", "dm-bufio", "dm-snapshot"),
)
"""In the order in which they are loaded; those that are built into the kernel are left out."""
FOLDERS = ("bin", "sbin", "tools", "etc", "dev", "proc", "sys", "tmp", "run", "mnt", "var", "lib/drbd", "lib/modules")
_ELF = b"\x7fELF"


class ImageUnavailable(Exception):
    """The guest cannot be made on this machine; the text says why."""


@dataclasses.dataclass(frozen=True)
class Image:
    """Paths of the kernel and the initial RAM disk."""

    kernel: pathlib.Path
    initrd: pathlib.Path


def provide() -> Image:
    """The image, made first when it is not there.

    Raises:
        ImageUnavailable: a package cannot be had, or does not hold what is expected.
    """
    cache = pathlib.Path(os.environ.get("RELEVO_INTEROP_CACHE", CACHE))
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        package = _kernel_package()
        folder = cache / f"{package}-{_fingerprint()}"
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as name:
                making = pathlib.Path(name)
                _make(making, package, cache / "packages")
                (making / "image").rename(folder)
    return Image(folder / "vmlinux", folder / "initrd")


def _fingerprint() -> str:
    """Of everything of ours that goes into the image."""
    found = hashlib.sha256()
    for path in (pathlib.Path(__file__), *sorted(GUEST_FILES.iterdir())):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _run(*command: str, cwd: pathlib.Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ImageUnavailable(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _kernel_package() -> str:
    """The package that the kernel's meta-package names."""
    for lists_updated in (False, True):
        depends = subprocess.run(
            ("apt-cache", "depends", KERNEL_PACKAGE), capture_output=True, text=True, stdin=subprocess.DEVNULL
        ).stdout
        found = re.search(r"Depends: (linux-image-\d\S+)", depends)
        if found:
            return found[1]
        if not lists_updated:
            _run("apt-get", "update", "-qq")
    raise ImageUnavailable(f"No package repository of this machine offers {KERNEL_PACKAGE}.")


def _package(name: str, packages: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
    """Download a package unless it is there, and unpack it."""
    packages.mkdir(exist_ok=True)
    found = sorted(packages.glob(f"{name}_*.deb"))
    if not found:
        # apt gives up its privileges for downloads, which this folder would not let it write to
        _run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name, cwd=packages)
        found = sorted(packages.glob(f"{name}_*.deb"))
    _run("dpkg", "-x", str(found[-1]), str(into))
    return into


def _make(making: pathlib.Path, package: str, packages: pathlib.Path) -> None:
    kernel = _package(package, packages, making / "kernel")
    busybox = _package(BUSYBOX_PACKAGE, packages, making / "busybox")
    image = making / "image"
    image.mkdir()
    (image / "vmlinux").write_bytes(_elf((next((kernel / "boot").glob("vmlinuz-*"))).read_bytes()))
    root = making / "root"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    shutil.copy(next(busybox.glob("**/bin/busybox")), root / "bin" / "busybox")
    for source in GUEST_FILES.iterdir():
        shutil.copy(source, root / source.name)
    (root / "init").chmod(0o755)
    _copy_tools(root)
    _copy_modules(kernel, root / "lib" / "modules")
    (image / "initrd").write_bytes(b"".join(_cpio(root)))


def _copy_tools(root: pathlib.Path) -> None:
    programs = [(name, root / "tools") for name in TOOLS]
    programs += [(str(DRBD_TOOLS_FOLDER / name), root / "lib" / "drbd") for name in DRBD_84_TOOLS]
    for name, folder in programs:
        path = shutil.which(name)
        if path is None:
            raise ImageUnavailable(f"{name} is not installed.")
        shutil.copy(path, folder / pathlib.Path(name).name)
        for library in re.findall(r"(/\S+) \(0x", _run("ldd", path)):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


def _copy_modules(kernel: pathlib.Path, folder: pathlib.Path) -> None:
    order = []
    for name in MODULES:
        found = next(kernel.glob(f"**/lib/modules/*/kernel/**/{name}.ko*"), None)
        if found is None:
            continue
        data = found.read_bytes()
        if found.suffix != ".ko":
            data = _UNPACK[found.suffix](data)
        (folder / f"{name}.ko").write_bytes(data)
        order.append(f"{name}.ko\n")
    if "drbd.ko\n" not in order:
        raise ImageUnavailable("This kernel has no drbd module.")
    (folder / "order").write_text("".join(order))


def _unpack_zstd(data: bytes) -> bytes:
    return subprocess.run(("zstd", "-dcq"), input=data, capture_output=True).stdout


_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lambda data: lzma.LZMADecompressor().decompress(data),
    ".gz": gzip.decompress,
    ".zst": _unpack_zstd,
}
_MAGIC = {".xz": b"\xfd7zXZ\x00", ".gz": b"\x1f\x8b\x08", ".zst": b"(\xb5/\xfd"}


def _elf(packed: bytes) -> bytes:
    """The kernel itself, out of its self-extracting image: under emulation QEMU unpacks nothing itself."""
    for kind, magic in _MAGIC.items():
        at = packed.find(magic)
        while at >= 0:
            try:
                found = _UNPACK[kind](packed[at:])
            except (OSError, EOFError, lzma.LZMAError):
                found = b""  # these bytes only looked like the beginning of it
            if found.startswith(_ELF):
                return found
            at = packed.find(magic, at + 1)
    raise ImageUnavailable("No kernel was found in the kernel's package.")


def _cpio(root: pathlib.Path) -> Iterator[bytes]:
    """An archive of the folder, in the format `newc` that the kernel takes."""
    for number, path in enumerate(sorted(root.rglob("*")), 1):
        mode = path.lstat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else b""
        yield from _cpio_entry(number, str(path.relative_to(root)), mode, content)
    yield from _cpio_entry(0, "TRAILER!!!", 0, b"")


def _cpio_entry(number: int, name: str, mode: int, content: bytes) -> Iterator[bytes]:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    for part in (head, content):
        yield part
        yield bytes(-len(part) % 4)
