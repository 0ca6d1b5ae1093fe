"""The Debian package for boards, as cross/build made it. What becomes of it on a board is
tested on a whole one: tests/board/."""

import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tools.programs import AARCH64, CHECKOUT, run, target_dir

MOST_MEGABYTES = {"chaskid": 15, "chaski": 18, "chaski-quantize": 3}
"""That of the daemon is a promise; `chaski` has a broker and the quantiser in it besides the engine."""
OLDEST_GLIBC = (2, 31)
"""JetPack 5 has it."""


@pytest.fixture(scope="module")
def package() -> Path:
    """The newest one."""
    packages = (target_dir() / "package").glob("chaski_*_arm64.deb")
    newest = max(packages, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise FileNotFoundError("there is no package: run `cross/build` first")
    return newest


@pytest.fixture(scope="module")
def contents(package) -> dict[str, tarfile.TarInfo]:
    """What it puts where."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(tar.stdout)) as archive:
        return {member.name.removeprefix("."): member for member in archive}


@pytest.fixture(scope="module")
def programs(package, tmp_path_factory) -> list[Path]:
    """Its programs, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    run("dpkg-deb", "--extract", package, folder)
    return sorted((folder / "usr/bin").iterdir())


def test_what_it_says_of_itself(package):
    control = run("dpkg-deb", "--field", package).stdout
    for line in ["Package: chaski", "Architecture: arm64", "Section: net"]:
        assert f"{line}\n" in control
    assert "libc6 (>= 2.31)" in control and "adduser" in control


def test_what_is_in_it(contents, package):
    for path in [
        "/usr/bin/chaskid",
        "/usr/bin/chaski",
        "/usr/bin/chaski-quantize",
        "/etc/chaski/chaski.toml",
        "/lib/systemd/system/chaskid.service",
        "/lib/systemd/system/chaski-model-update.service",
        "/lib/systemd/system/chaski-model-update.path",
        "/usr/share/man/man8/chaskid.8.gz",
        "/usr/share/man/man1/chaski.1.gz",
        "/usr/share/man/man1/chaski-models.1.gz",
        "/usr/share/bash-completion/completions/chaski",
        "/usr/share/zsh/vendor-completions/_chaskid",
        "/usr/share/fish/vendor_completions.d/chaski.fish",
        "/usr/share/doc/chaski/install.md",
        "/usr/share/doc/chaski/copyright",
        "/usr/share/doc/chaski/chaskid.example.toml",
    ]:
        assert path in contents, sorted(contents)
        assert contents[path].uid == contents[path].gid == 0, path
    # It may have a password in it.
    assert contents["/etc/chaski/chaski.toml"].mode & 0o007 == 0
    assert run("dpkg-deb", "--info", package, "conffiles").stdout.split() == [
        "/etc/chaski/chaski.toml"
    ]


def test_its_scripts_are_shell(package):
    for script in ["postinst", "prerm", "postrm"]:
        text = run("dpkg-deb", "--info", package, script).stdout
        run("sh", "-n", "-c", text)


def test_its_settings_are_valid(chaskid):
    """But for the model, which is not there yet."""
    said = run(chaskid, "validate", CHECKOUT / "package/chaski.toml", check=False).stderr
    problems = [line.strip() for line in said.splitlines()[1:]]
    assert len(problems) == 1 and problems[0].startswith("model.folder"), said


def test_its_programs_are_small_and_run_on_old_systems(programs):
    assert {program.name for program in programs} == set(MOST_MEGABYTES)
    for program in programs:
        megabytes = program.stat().st_size / 1e6
        print(f"{program.name}: {megabytes:.1f} MB")
        assert megabytes < MOST_MEGABYTES[program.name], program
        symbols = run("aarch64-linux-gnu-objdump", "-T", program).stdout
        versions = {
            tuple(map(int, version.split(".")))
            for version in re.findall(r"GLIBC_([\d.]+)", symbols)
        }
        assert versions and max(versions) <= OLDEST_GLIBC, (program, max(versions))
        sections = run("aarch64-linux-gnu-objdump", "-h", program).stdout
        assert ".symtab" not in sections and ".debug" not in sections


def test_its_programs_do_not_tell_who_built_them(programs):
    for program in programs:
        content = program.read_bytes()
        assert str(CHECKOUT).encode() not in content
        assert str(Path.home()).encode() + b"/.cargo" not in content


def test_its_programs_are_those_that_were_tested(programs):
    """The same build, without its symbols."""
    for program in programs:
        built = target_dir() / "cross" / AARCH64 / "release" / program.name
        text = [
            re.search(r" \.text +([0-9a-f]+) ", run("aarch64-linux-gnu-objdump", "-h", path).stdout)
            for path in (built, program)
        ]
        assert text[0][1] == text[1][1], program
