"""The daemon's package, and a later version of it."""

import os
import re
import shutil
from pathlib import Path

from tools.programs import run, target_dir


def find() -> Path:
    """The package under test: $CHASKI_DEB, or the one that was built."""
    if named := os.environ.get("CHASKI_DEB"):
        return Path(named)
    found = sorted((target_dir() / "package").glob("chaski_*_arm64.deb"))
    if not found:
        raise FileNotFoundError(
            "there is no chaski_*_arm64.deb in target/package: build it first, or name one in "
            "CHASKI_DEB"
        )
    return found[-1]


def later(
    deb: Path, folder: Path, suffix: str = "+later", program: bytes | None = None
) -> tuple[Path, str]:
    """The same package with a higher version, and that version; `program` in place of chaskid."""
    tree = folder / "package"
    fakeroot = [] if os.geteuid() == 0 else ["fakeroot"]
    run(*fakeroot, "dpkg-deb", "--raw-extract", deb, tree)
    control = tree / "DEBIAN/control"
    text = control.read_text()
    version = re.search(r"^Version: (\S+)$", text, re.MULTILINE)[1] + suffix
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", text))
    if program is not None:
        (tree / "usr/bin/chaskid").write_bytes(program)
    made = folder / f"chaski{suffix}.deb"
    # Compressed in the quick way: the guest is slow to unpack it.
    run(*fakeroot, "dpkg-deb", "--build", "--root-owner-group", "-Zgzip", "-z1", tree, made)
    shutil.rmtree(tree)
    return made, version
