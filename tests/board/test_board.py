"""The package on a whole board: one machine is booted, and lives through what a board may see.

The tests go on from each other, in their order; after one that failed the others do not
run. `tests/run board` runs them, after `tests/run build cross`.
"""

import re
import subprocess
import sys
import time

import pytest

from board import image, models, package
from board.machine import VIRT, Machine
from board.models import LONG, STORY
from tools.programs import CHECKOUT, run

from board.node import CONFIG, SERVICE, STORE, Asking, Node, topic

PATIENCE = 20
"""Seconds for which systemd waits for a sign of life."""
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


def test_installs_and_answers(machine, node, deb, good):
    node.install(deb)
    assert node.property("UnitFileState") == "enabled"
    node.add_model(good)
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
    assert node.journal(least="warning") == ""
    assert not re.search("not permitted|denied|panick", node.journal())
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
    pid, since = node.pid(), node.mark()
    node.configure(CONFIG.replace(f"max-tokens = {LONG}", "max-tokens = 5"))
    machine.run(f"systemctl reload {SERVICE}")
    node.wait_for_journal("reading the configuration again", since)
    with Asking(node, STORY, LONG, stream=True) as asking:
        assert asking.rest() == 5

    since = node.mark()
    node.configure("[node]\nname = 5\n")
    machine.run(f"systemctl reload {SERVICE}")
    node.wait_for_journal("the configuration stays as it is.*chaski.*toml", since)
    assert node.pid() == pid and node.property("ActiveState") == "active"
    with Asking(node, STORY, LONG, stream=True) as asking:
        assert asking.rest() == 5

    node.configure(CONFIG)
    machine.run(f"systemctl reload {SERVICE}")
    node.ask(good.questions[0])


def test_a_stop_hands_back_what_runs(machine, node):
    since = node.mark()
    with Asking(node, STORY, LONG, stream=True) as story, node.client() as watcher:
        watcher.subscribe(topic("status"))
        watcher.wait_for(topic("status"), "online")
        begun = story.first_part()
        machine.run(f"systemctl stop {SERVICE}", timeout=120)
        watcher.wait_for(topic("status"), "offline")
        said = node.journal(since)
        assert "timed out" not in said and "SIGKILL" not in said
        assert node.property("Result") == "success"
        machine.run(f"systemctl start {SERVICE}", timeout=180)
        watcher.wait_for(topic("status"), "online")
        assert story.rest() == LONG and story.text.startswith(begun)


def test_an_upgrade_keeps_configuration_and_model(machine, node, deb, good, tmp_path):
    later, version = package.later(deb, tmp_path)
    machine.put("/root/later.deb", later)
    config = machine.says(f"cat {node.config_file()}")
    before = node.pid()
    machine.run("dpkg --install /root/later.deb && rm /root/later.deb", timeout=600)
    assert machine.says("dpkg-query --show --showformat '${Version}' chaski") == version
    node.wait_for_new_pid(before)
    assert machine.says(f"cat {node.config_file()}") == config
    assert node.model() == good.name
    node.ask(good.questions[2])


def test_a_deployment_that_works_and_one_that_does_not(machine, node, deb, good, tmp_path):
    def deploy(package):
        return run(
            CHECKOUT / "cross/deploy", "--deb", package, "--wait", "180", "the-board",
            env={"CHASKI_SSH": f"{sys.executable} {image.HERE}/ssh.py {machine.shell_port}"},
            timeout=900, check=False,
        )  # fmt: skip

    def version():
        return machine.says("dpkg-query --show --showformat '${Version}' chaski")

    config = machine.says(f"cat {node.config_file()}")
    works, wanted = package.later(deb, tmp_path, "+works")
    said = deploy(works)
    assert said.returncode == 0 and "is online" in said.stdout, said
    assert version() == wanted
    node.ask(good.questions[0])

    fails, _ = package.later(deb, tmp_path, "+xfails", b"#!/bin/sh\necho no >&2; exit 1\n")
    said = deploy(fails)
    assert said.returncode == 1 and f"chaski {wanted} is back" in said.stdout, said
    assert version() == wanted
    assert machine.says(f"cat {node.config_file()}") == config
    assert machine.says("ls /tmp | grep ^tmp || true") == ""
    node.ask(good.questions[1])


def test_a_new_model(node, better):
    before = node.pid()
    node.offer(better.folder)
    node.wait_for_new_pid(before)
    assert node.current() == node.model() == better.name
    node.ask(better.questions[0])


def test_a_model_that_did_not_arrive_whole_is_refused(machine, node, better):
    since = node.mark()
    node.offer(models.with_wrong_hash(better, "damaged"))
    assert node.current() == better.name
    assert "damaged" not in machine.says("chaski models list")
    update = node.journal(since, "chaski-model-update.service")
    assert re.search("rejected.*damaged.*model.onnx.data", update), update
    node.wait_until_active()
    assert node.model() == better.name
    node.ask(better.questions[1])


def test_a_model_that_does_not_come_up_gives_way_to_the_last_good_one(machine, node, better):
    before = node.pid()
    node.offer(models.with_broken_graph(better, "broken"))
    node.wait_for_new_pid(before)
    assert node.current() == "broken"
    info = node.info()
    assert info["model"]["name"] == better.name
    assert info["instead_of"]["model"] == "broken" and "model.onnx" in info["instead_of"]["reason"]
    assert "in place of broken" in node.property("StatusText")
    assert "back to a model that came up before" in node.journal(least="warning")
    node.ask(better.questions[2])


def test_the_board_restarts(machine, node, better):
    machine.reboot()
    node.wait_until_active()
    node.wait_for_status("online")
    assert node.model() == better.name
    node.ask(better.questions[0])


def test_after_a_power_cut_the_board_is_at_what_it_was_at(machine, node, better):
    with Asking(node, STORY, LONG, stream=True) as story:
        story.first_part()
        # The broker writes down what it accepted now and then, and when it is told to.
        machine.run("kill -USR1 $(pidof mosquitto); sleep 2; sync")
        assert not re.search(f"answered .*{story.id}\\b", node.journal())
    machine.cut_power()
    node.wait_until_active()
    node.wait_for_journal(f"answered .*{story.id}\\b", timeout=300)
    node.ask(better.questions[0])


def test_removed_and_purged(machine, node, good, better):
    name = node.config_file()
    kept = " ".join(f"{STORE}/{model.name}/chaski.json" for model in (good, better))
    machine.run("dpkg --remove chaski", timeout=180)
    assert machine.run("pidof chaskid", check=False).status == 1
    assert machine.run(f"systemctl start {SERVICE}", check=False).status != 0
    assert machine.says(f"cat {name}") == CONFIG.strip()
    machine.run(f"ls {kept}")
    node.wait_for_status("offline")

    machine.run("dpkg --purge chaski", timeout=180)
    machine.run(f"[ ! -e {name} ] && ls {kept}")
    assert machine.says("systemctl list-unit-files --no-legend 'chaski*' || true") == ""
