"""`chaski doctor`: on every board, at a real broker, and with all that may be wrong."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from tools.certificates import Authority
from tools.daemon import Chaskid
from tools.mosquitto import free_port
from tools.programs import CHECKOUT

BOARDS = CHECKOUT / "tests/data/boards"
PROFILES = sorted(path.stem for path in (CHECKOUT / "board-configs").glob("*.toml"))
HOSTILE = sorted(path.name for path in BOARDS.glob("hostile-*"))
PASSWORD = "hunter2-xyzzy"


class Doctor:
    """Runs it with a configuration of the test's."""

    def __init__(self, run, chaski, folder: Path):
        self.run, self.chaski = run, chaski
        self.config = folder / "chaski.toml"
        self.environment: dict[str, str] = {}
        """Added to ours."""

    def configure(self, text: str) -> None:
        self.config.write_text(text)

    def __call__(self, *arguments) -> dict:
        """Its JSON, once its exit code is what it counts."""
        result = self.text(*arguments, "--json")
        report = json.loads(result.stdout)
        assert result.returncode == (1 if report["problems"] else 0), report
        verdicts = [check["verdict"] for check in report["checks"]]
        assert verdicts.count("problem") == report["problems"]
        assert verdicts.count("warning") == report["warnings"]
        return report

    def text(self, *arguments):
        result = self.run(
            self.chaski, "doctor", "--config", self.config, *arguments,
            check=False, timeout=60, env=self.environment,
        )  # fmt: skip
        assert result.returncode in (0, 1), result.stderr
        assert result.stderr == ""
        assert PASSWORD not in result.stdout
        return result


def check(report: dict, name: str) -> dict:
    """The one check of that name."""
    found = [check for check in report["checks"] if check["name"] == name]
    assert len(found) == 1, report["checks"]
    return found[0]


def assert_is(report: dict, name: str, verdict: str, *words: str) -> None:
    """How it went, and what it says."""
    found = check(report, name)
    assert found["verdict"] == verdict, found
    for word in words:
        assert word in found["finding"] + " " + found.get("remedy", ""), found
    # Whoever is told of something is told what to do.
    if verdict != "ok" and name != "configuration":
        assert found.get("remedy") or ":" in found["finding"], found


@pytest.fixture
def doctor(run, chaski, tmp_path):
    return Doctor(run, chaski, tmp_path)


@pytest.fixture
def node(doctor, mosquitto, smollm2_folder):
    """A machine where all is well, but for what the test changes: `node("[model] keys", …)`."""

    def factory(model: str = "", broker: str = "", mosquitto_config: str = "", rest: str = ""):
        at = mosquitto(config=mosquitto_config)
        doctor.configure(
            f'[broker]\nhost = "127.0.0.1"\nport = {at.port}\n{broker}\n'
            f'[model]\nfolder = "{smollm2_folder}"\n{model}\n{rest}'
        )
        return doctor

    return factory


@pytest.mark.parametrize("board", PROFILES)
def test_every_board_is_recognised_and_looked_at(node, board):
    report = node()("--root", BOARDS / board)
    profile = tomllib.loads((CHECKOUT / f"board-configs/{board}.toml").read_text())
    assert report["board"]["profile"] == board
    assert report["board"]["title"] == profile["title"]
    if profile.get("compatible"):
        assert report["board"]["recognised_by"].split()[0] in profile["compatible"]
        assert report["models"], "a board has models that fit"
    for model in report["models"]:
        assert model["basis"] in ("estimate", "measured") and model["source"]
    # Nothing on these boards keeps a small model from running.
    assert report["problems"] == 0, report["checks"]
    for name in ("configuration", "board", "kernels", "model", "memory", "broker"):
        assert_is(report, name, "ok")
    settings = {setting["key"]: setting for setting in report["settings"]}
    assert set(settings) == {
        "threads", "decode-threads", "cores", "kv-cache", "context-length", "prefill-chunk",
    }  # fmt: skip
    if board.startswith("generic-"):
        assert {setting["from"] for setting in settings.values()} == {"default"}
    else:
        assert settings["threads"]["from"] == "profile"


def test_what_the_fixtures_have_wrong_is_found(node):
    doctor = node()
    zero = doctor("--root", BOARDS / "raspberry-pi-zero-2-w")
    assert_is(zero, "governor", "warning", "ondemand", "scaling_governor")
    assert_is(zero, "power", "warning", "voltage", "since the start")
    assert_is(zero, "swap", "warning", "/var/swap", "zram")
    assert_is(zero, "memory limit", "warning", "cgroup_enable=memory")
    assert_is(zero, "pressure", "warning", "psi=1")
    assert_is(zero, "storage", "ok", "SD card")
    three = doctor("--root", BOARDS / "raspberry-pi-3b-plus")
    assert_is(three, "power", "warning", "slowed down now")
    five = doctor("--root", BOARDS / "raspberry-pi-5")
    assert_is(five, "pressure", "ok")
    assert_is(five, "storage", "ok", "NVMe")
    module = doctor("--root", BOARDS / "raspberry-pi-cm5")
    assert_is(module, "swap", "ok", "zram")
    nano = doctor("--root", BOARDS / "jetson-nano")
    # The zone that always says 100 °C is not the processor's.
    assert_is(nano, "temperature", "ok", "44.5 °C", "97.0 °C")
    orin = doctor("--root", BOARDS / "jetson-agx-orin")
    assert len(orin["machine"]["cores"]) == 8


@pytest.mark.parametrize("board", HOSTILE)
def test_hostile_machines_do_no_harm(node, board):
    doctor = node()
    report = doctor("--root", BOARDS / board)
    assert report["board"]["profile"].startswith("generic-")
    shown = doctor.text("--root", BOARDS / board).stdout
    assert len(shown) < 20_000
    assert not [c for c in shown if ord(c) < 32 and c not in "\n\t"], shown


def test_heat_and_supply_of_this_moment(node, tmp_path):
    root = tmp_path / "root"
    zone = root / "sys/class/thermal/thermal_zone0"
    firmware = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
    tree = root / "proc/device-tree/compatible"
    for folder in (zone, firmware.parent, tree.parent):
        folder.mkdir(parents=True)
    tree.write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    (zone / "type").write_text("cpu-thermal\n")
    firmware.write_text("50005\n")
    doctor = node()
    for celsius, verdict in ((60, "ok"), (77, "warning"), (84, "problem")):
        (zone / "temp").write_text(f"{celsius}000\n")
        report = doctor("--root", root)
        assert_is(report, "temperature", verdict, f"{celsius}.0 °C")
        assert_is(report, "power", "problem", "voltage", "supply")


def test_the_configuration_wins_and_is_told_apart(node):
    doctor = node(model='threads = 2\nkv-cache = "f32"\n')
    report = doctor("--root", BOARDS / "raspberry-pi-zero-2-w")
    settings = {setting["key"]: setting for setting in report["settings"]}
    assert settings["threads"] == {
        "key": "threads", "value": "2", "from": "configuration", "profile": "4",
    }  # fmt: skip
    assert settings["kv-cache"]["from"] == "configuration"
    assert settings["kv-cache"]["profile"] == "int8"
    assert settings["prefill-chunk"] == {"key": "prefill-chunk", "value": "32", "from": "profile"}
    text = doctor.text("--root", BOARDS / "raspberry-pi-zero-2-w").stdout
    assert "2 (configuration; the profile has 4)" in text
    assert "Raspberry Pi Zero 2 W Rev 1.0" in text


def test_a_profile_by_name_and_by_file(node, tmp_path):
    root = BOARDS / "generic-arm64"
    report = node(rest='[board]\nprofile = "raspberry-pi-5"\n')("--root", root)
    assert (report["board"]["profile"], report["board"]["recognised_by"]) == ("raspberry-pi-5", "name")
    # The processor is not that of a Pi 5.
    assert_is(report, "kernels", "warning", "neon-dotprod")
    own = tmp_path / "mine.toml"
    own.write_text('name = "mine"\ntitle = "Mine"\n[processor]\nprefill-threads = 3\n')
    report = node(rest='[board]\nprofile = "mine.toml"\n')("--root", root)
    assert report["board"] | {"model": 0} == {
        "profile": "mine", "title": "Mine", "model": 0, "recognised_by": "file",
    }  # fmt: skip
    own.write_text('name = "mine"\ntitle = "Mine"\n[heat]\nease-of = 3\n')
    report = node(rest='[board]\nprofile = "mine.toml"\n')("--root", root)
    assert_is(report, "board", "problem", "mine.toml", "line 4", "ease-of")


# --- the configuration


def test_a_missing_configuration(doctor):
    report = doctor("--root", BOARDS / "raspberry-pi-4b")
    assert_is(report, "configuration", "problem", str(doctor.config), "No such file")
    # The machine is looked at all the same.
    assert report["board"]["profile"] == "raspberry-pi-4b"
    assert_is(report, "governor", "warning")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[model]\nfolder = "m"\nthread = 3\n', ("line 3", "thread")),
        ('[model]\nfolder = "m"\n[broker]\nport = 0\n', ("broker.port",)),
        ('[model]\nfolder = "m"\n[board]\nprofile = "pi"\n', ("board.profile", "raspberry-pi-5")),
        ("\0\1\2", ("line 1",)),
    ],
)
def test_a_wrong_configuration_names_file_and_key(doctor, text, words):
    doctor.configure(text)
    report = doctor("--root", BOARDS / "raspberry-pi-4b")
    assert_is(report, "configuration", "problem", str(doctor.config), *words)
    assert not [check for check in report["checks"] if check["name"] == "broker"]


def test_a_password_for_all_to_see(node, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    report = node(broker='username = "u"\npassword-file = "secret"')("--root", BOARDS / "generic-x86-64")
    assert_is(report, "configuration", "warning", "chmod o=")


# --- the broker


def test_nobody_answers(doctor, smollm2_folder):
    port = free_port()
    doctor.configure(f'[broker]\nhost = "127.0.0.1"\nport = {port}\n[model]\nfolder = "{smollm2_folder}"\n')
    report = doctor("--root", BOARDS / "raspberry-pi-4b")
    assert_is(report, "broker", "problem", f"127.0.0.1:{port}", "broker.host")


@pytest.fixture
def accounts(tmp_path, run):
    """Configuration of a broker that knows one account."""
    passwords = tmp_path / "accounts"
    passwords.touch(0o600)
    run("mosquitto_passwd", "-b", passwords, "kitchen", PASSWORD)
    return f"allow_anonymous false\npassword_file {passwords}\n"


def test_an_account_is_taken_or_not(node, accounts):
    root = BOARDS / "raspberry-pi-4b"
    good = node(broker=f'username = "kitchen"\npassword = "{PASSWORD}"', mosquitto_config=accounts)
    assert_is(good("--root", root), "broker", "ok", '"kitchen"')
    bad = node(broker='username = "kitchen"\npassword = "wrong"', mosquitto_config=accounts)
    assert_is(bad("--root", root), "broker", "problem", "account", "broker.username")
    none = node(mosquitto_config=accounts)
    assert_is(none("--root", root), "broker", "problem", "account", "broker.username")


def test_a_node_that_runs_stays_connected(doctor, mosquitto, chaskid, smollm2_folder, tmp_path):
    broker = mosquitto()
    daemon = Chaskid(chaskid, tmp_path, smollm2_folder, broker.port, "board").start()
    try:
        daemon.wait_for_log("connected and subscribed")
        doctor.config = daemon.config_file
        assert_is(doctor("--root", BOARDS / "raspberry-pi-4b"), "broker", "ok")
        # Two clients of one id would push each other out.
        assert "already connected" not in broker.log()
    finally:
        daemon.stop()


def test_tls(doctor, mosquitto, smollm2_folder, tmp_path):
    authority = Authority(tmp_path / "authority")
    signed = authority.sign("broker", "DNS:localhost,IP:127.0.0.1")
    stranger = Authority(tmp_path / "stranger", "stranger")
    port = free_port()
    mosquitto(
        config=f"listener {port} 127.0.0.1\ncafile {authority.certificate}\n"
        f"certfile {signed.certificate}\nkeyfile {signed.key}\n"
    )

    def report(keys: str) -> dict:
        doctor.configure(
            f'[broker]\nhost = "127.0.0.1"\nport = {port}\n{keys}\n[model]\nfolder = "{smollm2_folder}"\n'
        )
        return doctor("--root", BOARDS / "raspberry-pi-4b")

    good = report(f'tls = true\nca-file = "{authority.certificate}"')
    assert_is(good, "broker", "ok", "encrypted")
    bad = report(f'tls = true\nca-file = "{stranger.certificate}"')
    assert_is(bad, "broker", "problem", "TLS", "broker.ca-file")
    missing = report('tls = true\nca-file = "no/such.pem"')
    assert_is(missing, "broker", "problem", "no/such.pem")
    assert_is(missing, "configuration", "problem", "broker.ca-file")


# --- the model


def test_a_missing_model(node, tmp_path):
    report = node()("--root", BOARDS / "raspberry-pi-4b", "--model", tmp_path / "nothing")
    assert_is(report, "model", "problem", "nothing", "chaski-quantize")


def test_a_model_cut_short(node, smollm2_folder, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    for file in smollm2_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    report = node()("--root", BOARDS / "raspberry-pi-4b", "--model", folder)
    assert_is(report, "model", "problem", "model.onnx.data", "copy the model folder again")


def machine_with(tmp_path: Path, mebibytes: int) -> Path:
    """A Pi 4 with so much memory, all of it free."""
    root = tmp_path / f"root-{mebibytes}"
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    kibibytes = mebibytes * 1024
    meminfo = (BOARDS / "raspberry-pi-4b/proc/meminfo").read_text()
    meminfo = re.sub(r"(MemTotal|MemAvailable):.*", rf"\1: {kibibytes:12} kB", meminfo)
    (root / "proc/meminfo").write_text(meminfo)
    return root


def test_a_model_that_does_not_fit(node, tmp_path):
    doctor = node(model='context-length = 8192\nkv-cache = "f32"')
    assert_is(doctor("--root", machine_with(tmp_path, 4000)), "memory", "ok", "8192 tokens")
    report = doctor("--root", machine_with(tmp_path, 700))
    assert_is(report, "memory", "problem", "context-length = 8192 needs")
    # What is said to fit does.
    finding = check(report, "memory")["finding"]
    tokens = int(re.search(r"context-length = (\d+) would fit", finding)[1])
    doctor = node(model=f'context-length = {tokens}\nkv-cache = "f32"')
    assert_is(doctor("--root", machine_with(tmp_path, 701)), "memory", "ok", f"{tokens} tokens")
    report = doctor("--root", machine_with(tmp_path, 300))
    assert_is(report, "memory", "problem", "would fit")
    report = doctor("--root", machine_with(tmp_path, 60))
    assert_is(report, "memory", "problem", "no model fits", "reserve-mib")


def test_a_context_beyond_the_model(node):
    report = node(model="context-length = 9000")("--root", BOARDS / "raspberry-pi-5")
    found = [check for check in report["checks"] if check["verdict"] == "problem"]
    assert [check["name"] for check in found] == ["model"]
    assert "9000" in found[0]["finding"] and "8192" in found[0]["finding"]


def test_this_machine(node):
    """Whatever it is, it is looked at without harm."""
    report = node()()
    for name in ("configuration", "kernels", "model", "broker", "memory"):
        assert_is(report, name, "ok")
    assert report["machine"]["memory_bytes"] > 1 << 28
    assert "scalar" in report["machine"]["kernels"]
    unknown = node(model='backend = "abacus"')()
    assert_is(unknown, "kernels", "problem", "abacus", "scalar")


def test_the_service(node, tmp_path):
    """A systemctl of our own stands in for a machine with systemd."""
    doctor = node()
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    doctor.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"

    def report(script: str) -> dict:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return doctor()

    def state(active: str, restarts: int = 0) -> str:
        lines = f"LoadState=loaded\nActiveState={active}\nSubState=x\nResult=r\nNRestarts={restarts}"
        return f"cat <<END\n{lines}\nEND"

    assert_is(report(state("active")), "service", "ok", "chaskid.service")
    assert_is(report(state("active", 9)), "service", "warning", "9 times", "journalctl")
    assert_is(report(state("inactive")), "service", "warning", "systemctl enable --now")
    assert_is(report(state("failed")), "service", "problem", "journalctl")
    assert_is(report("echo LoadState=not-found"), "service", "ok", "not installed")
    # As without systemd.
    absent = report("echo not booted with systemd >&2; exit 1")
    assert "service" not in [check["name"] for check in absent["checks"]]
