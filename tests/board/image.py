"""Makes the disk of a board: Debian for arm64 with systemd and Mosquitto.

    python tests/board/image.py

mmdebstrap fetches Debian's packages, dpkg unpacks them here and configures them in
the first boot of the emulated machine: that wants neither root nor a kernel that
runs foreign programs. The initramfs is our own, which saves the quarter of an hour
that Debian's takes under emulation.

It is kept in target/board/ until something here changes, or the folder is
removed: then it has today's packages.
"""

import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from board.machine import VIRT, Machine  # noqa: E402
from tools.programs import run, target_dir  # noqa: E402

PACKAGES = ["systemd-sysv", "udev", "dbus", "mosquitto", "busybox-static", "usr-is-merged"]
KERNEL = "linux-image-arm64"
BROADCOM = ["bcm2837-rpi-3-b.dtb", "bcm2837-rpi-zero-2-w.dtb"]
MODULES = [
    # What `-M virt` has: disk, network card, randomness.
    "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio-rng",
    # And a Raspberry Pi: SD card, USB, a network card at it.
    "sdhci-iproc", "bcm2835", "phy-generic", "dwc2", "cdc_ether", "rndis_host", "smsc95xx",
    "bcm2835_thermal",
    # Debian's ext4 asks the kernel's cryptography for the first by a name that is no module's.
    "crc32c_generic", "ext4",
]  # fmt: skip
SIZE = "1G"
"""A power of two, as qemu wants an SD card to be."""


@dataclass(frozen=True)
class Image:
    """The files that a machine boots from."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """Debian's, as it is."""
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """Ours."""
        return self.folder / "initramfs"

    @property
    def disk(self) -> Path:
        """An ext4 without partitions."""
        return self.folder / "disk"

    def device_tree(self, name: str) -> Path:
        """One of those that come with the kernel."""
        return self.folder / name


def ready() -> Image:
    """The image, made first if it is not there."""
    folder = target_dir() / "board" / f"image-{_key()}"
    if not folder.is_dir():
        # The packages' files belong to root: where nobody is that, fakeroot lets it look so.
        fakeroot = [] if os.geteuid() == 0 else ["fakeroot"]
        subprocess.run([*fakeroot, sys.executable, __file__], check=True)
    return Image(folder)


def _key() -> str:
    """Changes with whatever goes into the image and is in this folder."""
    digest = hashlib.sha256(_suite().encode())
    for file in [Path(__file__), *sorted((HERE / "guest").iterdir())]:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _suite() -> str:
    """The release of Debian that this machine has."""
    release = Path("/etc/os-release").read_text()
    return re.search(r"^VERSION_CODENAME=(\w+)$", release, re.MULTILINE)[1]


def _sources() -> list[str]:
    """Where this machine has that release from, as lines of sources.list."""
    form = "--format=$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)"
    targets = run("apt-get", "indextargets", form).stdout.splitlines()
    lines = []
    for uri, release, component, made_by in (target.split("|") for target in targets):
        known = made_by == "Packages" and re.search(r"/debian(-security)?/?$", uri)
        line = f"deb {uri} {release} {component}"
        if known and release.startswith(_suite()) and line not in lines:
            lines.append(line)
    assert lines, f"apt has no source of Debian {_suite()}: see `apt-get indextargets`"
    return lines


def make() -> Image:
    """Makes the image; an earlier one is removed."""
    place = target_dir() / "board"
    work = place / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    root = work / "root"
    image = Image(work / "image")
    image.folder.mkdir()

    _fetch(root, work)
    modules = _kernel(root, work, image)
    _unpack(root, work)
    busybox = (root / "usr/bin/busybox").read_bytes()
    image.initramfs.write_bytes(_initramfs(busybox, modules))
    _furnish(root)
    run(
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "board", "-d", root,
        "-E", "assume_storage_prezeroed=1,nodiscard", image.disk, SIZE,
    )  # fmt: skip
    _configure(image)

    for old in place.glob("image-*"):
        shutil.rmtree(old)
    done = image.folder.rename(place / f"image-{_key()}")
    shutil.rmtree(work)
    return Image(done)


def _fetch(root: Path, work: Path) -> None:
    """Debian's essential packages and ours, as files and extracted, which dpkg ignores."""
    run(
        "mmdebstrap", "--mode=chrootless", "--variant=extract", "--architectures=arm64",
        # Nothing of them is run here.
        "--skip=check/qemu", "--skip=cleanup/apt,cleanup/reproducible",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        "--include=?essential", f"--include={','.join(PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"',
        _suite(), root, *_sources(),
        timeout=900, env={"TMPDIR": str(work)},
    )  # fmt: skip


def _unpack(root: Path, work: Path) -> None:
    """Lets dpkg unpack them, which takes it three minutes in the guest.

    Only the guest can run what they would have run before: it does so when it configures them.
    """
    scripts, tree = root / "board/preinst", work / "package"
    scripts.mkdir(parents=True)
    packages = []
    for deb in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        name = deb.name.partition("_")[0]
        run("dpkg-deb", "--raw-extract", deb, tree)
        if (tree / "DEBIAN/preinst").exists():
            (tree / "DEBIAN/preinst").rename(scripts / name)
        packages.append(work / f"{name}.deb")
        run("dpkg-deb", "--build", "-Znone", "--nocheck", tree, packages[-1])
        shutil.rmtree(tree)
    run(
        "dpkg", f"--root={root}", "--force-architecture", "--force-script-chrootless",
        "--force-depends", "--force-unsafe-io", "--unpack", *packages,
    )  # fmt: skip
    shutil.rmtree(root / "var/lib/apt")
    shutil.rmtree(root / "var/cache/apt")


def _kernel(root: Path, work: Path, image: Image) -> list[tuple[str, bytes]]:
    """Takes out of Debian's kernel what is needed; gives the modules in their order."""
    apt = [
        "-o", f"Dir={root}", "-o", f"Dir::State::status={root}/var/lib/dpkg/status",
        "-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64",
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    depends = run("apt-cache", *apt, "depends", KERNEL).stdout
    package = re.search(r"Depends: (linux-image-\S+)", depends)[1]
    run("apt-get", *apt, "download", "-qq", package, cwd=work, timeout=600)
    tree = work / "kernel"
    (deb,) = work.glob("linux-image-*.deb")
    run("dpkg-deb", "-x", deb, tree, timeout=300)

    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, image.kernel)
    (broadcom,) = (tree / "usr/lib").glob("linux-image-*/broadcom")
    for name in BROADCOM:
        shutil.copy(broadcom / name, image.device_tree(name))
    files = {}
    for file in (tree / "lib/modules").rglob("*.ko*"):
        name = file.name.partition(".")[0].replace("-", "_")
        files[name] = file
    order: dict[str, bytes] = {}
    for name in MODULES:
        _add_module(name.replace("-", "_"), files, order)
    return list(order.items())


def _add_module(name: str, files: dict[str, Path], order: dict[str, bytes]) -> None:
    """Adds a module behind those that it needs, which it names in itself."""
    if name in order:
        return
    file = files[name]
    content = file.read_bytes()
    if file.suffix == ".xz":
        content = lzma.decompress(content)
    needs = re.search(rb"\0depends=([^\0]*)\0", content)[1].decode()
    for other in filter(None, needs.split(",")):
        _add_module(other.replace("-", "_"), files, order)
    order[name] = content


def _initramfs(busybox: bytes, modules: list[tuple[str, bytes]]) -> bytes:
    order = "".join(f"{name}\n" for name, _ in modules).encode()
    archive = io.BytesIO()
    for folder in ("bin", "modules"):
        _cpio(archive, folder, 0o040755, b"")
    _cpio(archive, "bin/busybox", 0o100755, busybox)
    _cpio(archive, "init", 0o100755, (HERE / "guest/init").read_bytes())
    _cpio(archive, "modules/order", 0o100644, order)
    for name, content in modules:
        _cpio(archive, f"modules/{name}", 0o100644, content)
    _cpio(archive, "TRAILER!!!", 0, b"")
    return gzip.compress(archive.getvalue(), compresslevel=1)


def _cpio(archive: io.BytesIO, name: str, mode: int, content: bytes) -> None:
    """A file in the format `newc`, which the kernel reads."""
    number = archive.tell() + 1
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    for part in (head, content):
        archive.write(part + b"\0" * (-len(part) % 4))


def _furnish(root: Path) -> None:
    """Puts our files beside Debian's."""
    guest = HERE / "guest"
    for name, place, mode in [
        ("configure", "board/configure", 0o755),
        ("shell", "board/shell", 0o755),
        ("board-shell.socket", "etc/systemd/system/board-shell.socket", 0o644),
        ("board-shell@.service", "etc/systemd/system/board-shell@.service", 0o644),
        ("board.network", "etc/systemd/network/board.network", 0o644),
        ("mosquitto.conf", "etc/mosquitto/conf.d/board.conf", 0o644),
    ]:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(guest / name, path)
        path.chmod(mode)
    (root / "etc/hostname").write_text("board\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost board\n")


def _configure(image: Image) -> None:
    """Boots it once, for dpkg to configure what was unpacked."""
    with Machine(VIRT, image, image.folder, keep=True, init="/board/configure") as machine:
        machine.wait_for_end(timeout=1200)
        assert "board: configured" in machine.console(), machine.tail(200)


if __name__ == "__main__":
    print(make().folder)
