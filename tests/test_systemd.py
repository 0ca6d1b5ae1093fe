"""What systemd is told, and the unit."""

import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from tools.daemon import Chaskid
from tools.mqtt_client import Client
from tools.programs import CHECKOUT, run as run_program

UNITS = sorted((CHECKOUT / "systemd").iterdir())


class Manager:
    """The other end of NOTIFY_SOCKET, where systemd would be."""

    def __init__(self, folder: Path):
        self.path = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.seen: list[str] = []

    def next(self, timeout: float = 60) -> list[str]:
        """The lines of the next message."""
        self.socket.settimeout(timeout)
        lines = self.socket.recv(65536).decode().splitlines()
        self.seen += lines
        return lines

    def wait_for(self, line: str, timeout: float = 60) -> list[str]:
        """Takes messages until one has a line that begins so."""
        deadline = time.monotonic() + timeout
        while True:
            lines = self.next(max(deadline - time.monotonic(), 0.01))
            if any(each.startswith(line) for each in lines):
                return lines


@pytest.fixture
def manager(tmp_path):
    """It listens to `daemon`."""
    manager = Manager(tmp_path)
    yield manager
    manager.socket.close()


@pytest.fixture
def daemon(manager, mosquitto, chaskid, smollm2_folder, tmp_path):
    """Not started; its `.broker` not either."""
    broker = mosquitto(start=False)
    daemon = Chaskid(chaskid, tmp_path, smollm2_folder, broker.port, "board")
    daemon.broker = broker
    # Of the daemon alone: Mosquitto knows systemd too.
    daemon.environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "1000000"}
    yield daemon
    daemon.stop()


def test_from_start_to_end(manager, daemon):
    daemon.start()
    manager.wait_for("STATUS=loading the model")
    manager.wait_for("STATUS=no connection to the broker")
    assert "READY=1" not in manager.seen
    daemon.broker.start()
    manager.wait_for("READY=1")
    manager.wait_for("STATUS=online; 0 wait, 0 answered, 0 refused")

    with Client(daemon.broker.port) as client:
        client.subscribe("me")
        client.publish(daemon.topic("ask"), "What is the capital of Peru?", "me")
        assert b"Lima" in client.next().payload
    manager.wait_for("STATUS=online; 0 wait, 1 answered")

    daemon.process.send_signal(signal.SIGHUP)
    reloading = manager.wait_for("RELOADING=1")
    assert any(re.fullmatch(r"MONOTONIC_USEC=\d+", line) for line in reloading)
    manager.wait_for("READY=1")
    assert daemon.terminate() == 0
    manager.wait_for("STOPPING=1")


def test_answers_are_kept_in_the_state_directory(manager, daemon, tmp_path):
    daemon.environment["STATE_DIRECTORY"] = str(tmp_path)
    daemon.broker.start()
    request = {"id": "q1", "messages": [{"role": "user", "content": "Name an animal."}]}
    replies = []
    for _ in range(2):
        daemon.start()
        manager.wait_for("READY=1")
        with Client(daemon.broker.port) as client:
            client.subscribe("me")
            client.publish(daemon.topic("chat"), {**request, "temperature": 1.5}, "me")
            replies.append(client.next_json())
        daemon.kill()
    assert replies[0] == replies[1]
    assert "answered again" in daemon.log() and (tmp_path / "answers").stat().st_size > 0


def test_signs_of_life_at_rest_and_at_work(manager, daemon):
    daemon.broker.start()
    daemon.start()
    manager.wait_for("READY=1")
    for _ in range(3):
        manager.wait_for("WATCHDOG=1", timeout=10)
    with Client(daemon.broker.port) as client:
        client.subscribe("me")
        story = [{"role": "user", "content": "Tell me a very long story about a dog."}]
        client.publish(daemon.topic("chat"), {"messages": story, "stream": True}, "me")
        client.next()
        for _ in range(3):
            manager.wait_for("WATCHDOG=1", timeout=10)
        assert client.messages.qsize() > 0, "it was computing all the time"


def test_a_daemon_that_is_frozen_gives_no_sign(manager, daemon):
    daemon.broker.start()
    daemon.start()
    manager.wait_for("READY=1")
    manager.wait_for("WATCHDOG=1")
    daemon.pause()
    with pytest.raises(TimeoutError):
        # What was on its way.
        for _ in range(5):
            manager.next(timeout=2)
    daemon.resume()
    manager.wait_for("WATCHDOG=1")


def test_a_manager_that_does_not_listen_is_not_waited_for(manager, daemon):
    daemon.broker.start()
    daemon.start()
    manager.wait_for("READY=1")
    # Until its socket is full of signs of life.
    time.sleep(4)
    with Client(daemon.broker.port) as client:
        client.subscribe("me")
        client.publish(daemon.topic("ask"), "What is the capital of Peru?", "me")
        assert b"Lima" in client.next().payload
    manager.wait_for("STATUS=online; 0 wait, 1 answered")


def systemd_analyze(*arguments: object):
    if shutil.which("systemd-analyze") is None:
        raise FileNotFoundError("systemd-analyze is not installed: apt-get install systemd")
    return run_program("systemd-analyze", *map(str, arguments))


def test_the_units_are_understood(chaskid, chaski, tmp_path):
    # The programs have to be where the units say.
    for unit in UNITS:
        text = unit.read_text().replace("/usr/bin/chaskid", str(chaskid))
        text = text.replace("/usr/bin/chaski ", f"{chaski} ")
        (tmp_path / unit.name).write_text(text)
    units = sorted(tmp_path.iterdir())
    assert len(units) == 3
    verified = systemd_analyze("verify", "--man=no", *units)
    complaints = [line for line in verified.stderr.splitlines() if "chaski" in line]
    assert complaints == [], verified.stderr


def test_what_an_older_systemd_does_not_know():
    """JetPack 5 has 245, which passes over a directive that it does not know with a warning.
    Each is here with the version that brought it, so that a new one is thought about."""
    later = {"ProtectProc": 247}
    by_245 = set(
        """
        Description Documentation Wants After StartLimitIntervalSec WantedBy DirectoryNotEmpty
        Type NotifyAccess ExecStart ExecReload ExecStopPost Restart RestartSec TimeoutStartSec
        TimeoutStopSec WatchdogSec OOMPolicy OOMScoreAdjust MemoryHigh CPUWeight IOWeight Nice
        IOSchedulingClass User Group UMask StateDirectory StateDirectoryMode
        ConfigurationDirectory ReadWritePaths CapabilityBoundingSet AmbientCapabilities
        NoNewPrivileges ProtectSystem ProtectHome PrivateTmp PrivateMounts PrivateDevices
        PrivateNetwork DevicePolicy PrivateUsers ProtectHostname ProtectClock
        ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectControlGroups
        RemoveIPC RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID
        LockPersonality MemoryDenyWriteExecute SystemCallArchitectures SystemCallFilter
        SystemCallErrorNumber
        """.split()
    )
    used = {
        directive
        for unit in UNITS
        for directive in re.findall(r"^(\w+)=", unit.read_text(), re.MULTILINE)
    }
    assert used - by_245 == set(later)


@pytest.mark.parametrize(("unit", "most"), [("chaskid", 1.3), ("chaski-model-update", 2.0)])
def test_the_sandbox_is_tight(unit, most):
    """The one that takes in models is root's, as what it takes in is whoever's."""
    file = CHECKOUT / "systemd" / f"{unit}.service"
    rated = systemd_analyze("security", "--offline=true", file)
    exposure = re.search(rf"Overall exposure level for {unit}.service: ([\d.]+)", rated.stdout)
    print(exposure[0])
    assert float(exposure[1]) <= most
