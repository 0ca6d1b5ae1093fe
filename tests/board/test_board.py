"""The package on a whole board: one machine is booted, and lives through what a board may see.

The tests go on from each other, in their order; after one that failed the others do not
run. `tests/run board` runs them, after `tests/run build cross`.
"""

import re
import subprocess
import time

import pytest

from board import image, models, package
from board.machine import VIRT, Machine
from board.models import LONG, STORY
from board.node import SERVICE, Asking, Node, topic
from tools.programs import release_program

STORE = "/var/lib/chaski/models"
CURRENT = f"{STORE}/current"
PATIENCE = 20
"""Seconds for which systemd waits for a sign of life."""
CONFIG = f"""
[node]
name = "board"
[broker]
host = "localhost"
keep-alive = 10
[model]
folder = "{CURRENT}"
[limits]
max-tokens = {LONG}
"""
DROP_IN = f"""
[Service]
WatchdogSec={PATIENCE}
RestartSec=1
"""

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """It runs through all tests."""
    with Machine(VIRT, image.ready(), tmp_path_factory.mktemp("machine")) as machine:
        started = time.monotonic()
        machine.wait_for_boot()
        print(f"booted in {time.monotonic() - started:.0f} s")
        yield machine


@pytest.fixture(scope="module")
def node(machine):
    """The daemon in it."""
    return Node(machine)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The model that is there first."""
    return make_model("llama-a", 6, tmp_path_factory)


@pytest.fixture(scope="module")
def better(tmp_path_factory):
    """Another one."""
    return make_model("llama-b", 2, tmp_path_factory)


def make_model(name, layers, tmp_path_factory):
    programs = release_program("chaski-quantize"), release_program("chaski")
    return models.make(tmp_path_factory.mktemp("models"), name, layers, *programs)


def offer(machine, folder) -> None:
    """Moves a model to where the update looks."""
    machine.put_folder(f"{STORE}/.{folder.name}", folder)
    machine.run(f"chown -R chaski: {STORE}/.{folder.name}")
    machine.run(f"mv {STORE}/.{folder.name} {STORE}/incoming/{folder.name}")


def config_file(node) -> str:
    """The one configuration file that the package has."""
    conffiles = node.machine.says("dpkg-query --show --showformat '${Conffiles}' chaski")
    (name,) = re.findall(r"/etc/chaski/\S+\.toml", conffiles)
    return name


def test_installs_and_answers(machine, node, good):
    machine.put("/root/chaski.deb", package.find())
    machine.run("dpkg --install /root/chaski.deb", timeout=300)
    assert node.property("UnitFileState") == "enabled"
    assert CURRENT in machine.says(f"cat {config_file(node)}")
    machine.put(config_file(node), CONFIG.encode(), 0o644)

    machine.put_folder(f"/root/{good.name}", good.folder)
    machine.run(f"chaski models install /root/{good.name}")
    assert machine.says(f"basename $(readlink -f {CURRENT})") == good.name
    machine.run(f"systemctl start {SERVICE}", timeout=180)
    machine.run(f"systemctl is-active {SERVICE}")
    assert 'Status: "online; 0 wait, 0 answered' in machine.says(f"systemctl status {SERVICE}")
    for question in good.questions[:3]:
        node.ask(question)
    assert node.model() == good.name


def test_the_sandbox_is_there_and_in_nobodys_way(machine, node):
    status = machine.says(f"cat /proc/{node.pid()}/status")
    held = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert held["Seccomp"] == "2" and held["NoNewPrivs"] == "1"
    assert int(held["CapEff"], 16) == int(held["CapBnd"], 16) == 0
    assert "0" not in held["Uid"].split()
    assert machine.says(f"stat --format %U /proc/{node.pid()}") == "chaski"
    # What its user may write where it is.
    enter = f"nsenter --target {node.pid()} --mount --setuid $(id -u chaski)"
    machine.run(f"{enter} sh -c 'touch /var/lib/chaski/x && rm /var/lib/chaski/x'")
    for folder in ("/etc/chaski", "/usr", "/var/lib/mosquitto", "/dev"):
        machine.run(f"! {enter} touch {folder}/x")
    machine.run(f"! {enter} --setuid 0 touch /usr/x && ! {enter} --setuid 0 ls /root/.bashrc")
    complaints = re.findall(r".*(?:ERROR|WARN|not permitted|denied|panick).*", node.journal())
    assert complaints == []
    assert machine.says("journalctl --no-pager -k -g 'audit.*SECCOMP' -q || true") == ""


def test_a_killed_daemon_comes_back_and_answers_what_it_was_at(machine, node, good):
    machine.run(f"mkdir -p /etc/systemd/system/{SERVICE}.d")
    machine.put(f"/etc/systemd/system/{SERVICE}.d/test.conf", DROP_IN.encode())
    machine.run(f"systemctl daemon-reload && systemctl restart {SERVICE}", timeout=180)
    before, restarts = node.pid(), node.restarts()
    with Asking(node, STORY, LONG, stream=True) as story:
        begun = story.first_part()
        with Asking(node, good.questions[0].text) as waiting:
            machine.run(f"kill -KILL {before}")
            node.wait_for_new_pid(before)
            assert node.restarts() == restarts + 1
            assert story.rest() == LONG
            assert story.text.startswith(begun) and len(story.text) > len(begun)
            waiting.finish(good.questions[0])


def test_at_rest_the_watchdog_does_nothing(node):
    pid = node.pid()
    time.sleep(1.5 * PATIENCE)
    assert node.pid() == pid
    assert node.property("WatchdogUSec") == f"{PATIENCE}s"


def test_a_frozen_inference_thread_is_noticed(machine, node, good, tmp_path):
    program = tmp_path / "freeze_thread"
    source = image.HERE / "freeze_thread.c"
    subprocess.run(
        ["aarch64-linux-gnu-gcc", "-static", "-O1", "-Wall", "-Werror", "-o", program, source],
        check=True,
    )
    machine.put("/root/freeze_thread", program, 0o755)
    before, restarts, since = node.pid(), node.restarts(), node.mark()
    with Asking(node, STORY, LONG, stream=True) as story:
        begun = story.first_part()
        machine.run(f"systemd-run --unit freezer --quiet /root/freeze_thread {before} inference")
        machine.wait_until("journalctl --sync; journalctl -u freezer -g 'frozen: '")
        said = node.wait_for_journal(r"Watchdog timeout", since)
        assert "the running request does not go on" in said
        node.wait_for_new_pid(before)
        assert node.restarts() == restarts + 1
        assert story.rest() == LONG and story.text.startswith(begun)
    node.ask(good.questions[1])


def test_reload(machine, node, good):
    pid, since, name = node.pid(), node.mark(), config_file(node)
    machine.put(name, CONFIG.replace(f"max-tokens = {LONG}", "max-tokens = 5").encode())
    machine.run(f"systemctl reload {SERVICE}")
    node.wait_for_journal("reading the configuration again", since)
    with Asking(node, STORY, LONG, stream=True) as asking:
        assert asking.rest() == 5

    since = node.mark()
    machine.put(name, b"[node]\nname = 5\n")
    machine.run(f"systemctl reload {SERVICE}")
    said = node.wait_for_journal("ERROR.*the configuration stays as it is", since)
    assert name in said
    assert node.pid() == pid and node.property("ActiveState") == "active"
    with Asking(node, STORY, LONG, stream=True) as asking:
        assert asking.rest() == 5

    machine.put(name, CONFIG.encode())
    machine.run(f"systemctl reload {SERVICE}")
    node.ask(good.questions[0])


def test_a_stop_hands_back_what_runs(machine, node):
    since = node.mark()
    with Asking(node, STORY, LONG, stream=True) as story, node.client() as watcher:
        watcher.subscribe(topic("status"))
        watcher.wait_for(topic("status"), "online")
        begun = story.first_part()
        machine.run(f"systemctl stop {SERVICE}", timeout=60)
        watcher.wait_for(topic("status"), "offline", 10)
        said = node.journal(since)
        assert "timed out" not in said and "SIGKILL" not in said
        assert node.property("Result") == "success"
        machine.run(f"systemctl start {SERVICE}", timeout=180)
        watcher.wait_for(topic("status"), "online")
        assert story.rest() == LONG and story.text.startswith(begun)


def test_an_upgrade_keeps_configuration_and_model(machine, node, good, tmp_path):
    deb, version = package.later(package.find(), tmp_path)
    machine.put("/root/later.deb", deb)
    config = machine.says(f"cat {config_file(node)}")
    before = node.pid()
    machine.run("dpkg --install /root/later.deb", timeout=300)
    assert machine.says("dpkg-query --show --showformat '${Version}' chaski") == version
    node.wait_for_new_pid(before)
    assert machine.says(f"cat {config_file(node)}") == config
    assert node.model() == good.name
    node.ask(good.questions[2])


def test_a_new_model(machine, node, better):
    before = node.pid()
    offer(machine, better.folder)
    machine.wait_until(f"[ $(basename $(readlink -f {CURRENT})) = {better.name} ]")
    node.wait_for_new_pid(before)
    assert node.model() == better.name
    node.ask(better.questions[0])


def test_a_model_that_did_not_arrive_whole_is_refused(machine, node, better):
    before = node.pid()
    offer(machine, models.with_wrong_hash(better, "damaged"))
    machine.wait_until(f"! ls {STORE}/incoming | grep .")
    machine.wait_until("! systemctl is-active --quiet chaski-model-update.service")
    assert machine.says(f"basename $(readlink -f {CURRENT})") == better.name
    assert machine.run(f"[ -e {STORE}/damaged ]", check=False).status == 1
    node.wait_until_active()
    assert node.model() == better.name
    node.ask(better.questions[1])
    update = node.journal(unit="chaski-model-update.service")
    assert re.search("damaged.*model.onnx.data", update), (before, update)


def test_a_model_that_does_not_come_up_gives_way_to_the_last_good_one(machine, node, better):
    since, before = node.mark(), node.pid()
    offer(machine, models.with_broken_graph(better, "broken"))
    machine.wait_until(f"! ls {STORE}/incoming | grep .")
    node.wait_for_journal("broken", since)
    node.wait_for_new_pid(before)
    assert node.model() == better.name
    node.ask(better.questions[2])
    assert better.name in node.property("StatusText")


def test_the_board_restarts(machine, node, better):
    machine.reboot()
    node.wait_until_active()
    node.wait_for_status("online")
    assert node.model() == better.name
    node.ask(better.questions[0])


def test_a_power_cut(machine, node, better):
    with Asking(node, STORY, LONG, stream=True) as story:
        begun = story.first_part()
        assert begun
        # The broker is to know of the question: it writes now and then, and when it is told to.
        machine.run("kill -USR1 $(pidof mosquitto); sleep 2; sync")
    machine.cut_power()
    node.wait_until_active()
    node.ask(better.questions[0])


def test_removed_and_purged(machine, node, good, better):
    name = config_file(node)
    machine.run("dpkg --remove chaski", timeout=180)
    assert node.property("LoadState") == "not-found" and node.property("ActiveState") == "inactive"
    assert machine.run("pidof chaskid", check=False).status == 1
    assert machine.says(f"cat {name}") == CONFIG.strip()
    machine.run(f"ls {STORE}/{good.name}/chaski.json {STORE}/{better.name}/chaski.json")

    machine.run("dpkg --purge chaski", timeout=180)
    machine.run(f"[ ! -e {name} ]")
    machine.run(f"ls {STORE}/{good.name}/chaski.json {STORE}/{better.name}/chaski.json")
    assert machine.says("systemctl list-unit-files --no-legend 'chaski*'") == ""
    node.wait_for_status("offline")
