"""The daemon on boards: what their profiles set, and what they leave to the user."""

import json

import pytest

from tools.daemon import Chaskid
from tools.mqtt_client import Client
from tools.programs import CHECKOUT

BOARDS = CHECKOUT / "tests/data/boards"


@pytest.fixture
def info(mosquitto, chaskid, smollm2_folder, tmp_path):
    """A factory of what a daemon on a board says of itself, and its log: `info("jetson-nano", "[model] keys")`."""
    daemons = []

    def factory(board: str, model: str = "", profile: str = "") -> tuple[dict, str]:
        broker = mosquitto()
        name = f"node{len(daemons)}"
        metrics = f'system-root = "{BOARDS / board}"' if board else ""
        daemon = Chaskid(
            chaskid, tmp_path, smollm2_folder, broker.port, name,
            model=model, metrics=metrics, board=profile,
        )  # fmt: skip
        # The board has a say only where the user has none.
        text = daemon.config_file.read_text().replace("\nthreads = 1\n", "\n")
        daemon.config_file.write_text(text)
        daemons.append(daemon.start())
        daemon.wait_for_log("connected and subscribed")
        with Client(broker.port) as client:
            client.subscribe(daemon.topic("info"))
            return json.loads(client.next().payload), daemon.log()

    yield factory
    for daemon in daemons:
        daemon.stop()


def lines(log: str, text: str) -> list[str]:
    return [line for line in log.splitlines() if text in line]


def test_a_small_board_gets_what_suits_it(info):
    said, log = info("raspberry-pi-zero-2-w")
    assert said["board"] == {
        "profile": "raspberry-pi-zero-2-w",
        "model": "Raspberry Pi Zero 2 W Rev 1.0",
    }
    assert (said["context_length"], said["threads"]) == (1024, 4)
    (line,) = lines(log, "the board is known")
    for word in ("raspberrypi,model-zero-2-w", 'kv-cache = "int8"', "context-length = 1024", "prefill-chunk = 32"):
        assert word in line, line
    (line,) = lines(log, "model loaded")
    assert "kv_cache=Int8" in line


def test_the_user_wins(info):
    said, log = info("raspberry-pi-zero-2-w", 'threads = 2\ncontext-length = 300\nkv-cache = "f32"')
    assert (said["context_length"], said["threads"]) == (300, 2)
    assert "kv_cache=F32" in lines(log, "model loaded")[0]
    (line,) = lines(log, "the board is known")
    assert "threads" not in line and "context-length" not in line and "prefill-chunk" in line


def test_other_machines_stay_as_they_are(info):
    for board in ("generic-arm64", "hostile-garbage", ""):
        said, log = info(board)
        assert said["board"]["profile"].startswith("generic-")
        assert said["context_length"] == 4096
        assert "set=nothing" in lines(log, "the board is known")[0]
        assert "kv_cache=F16" in lines(log, "model loaded")[0]


def test_a_context_is_cut_to_what_the_model_takes(info):
    said, _ = info("jetson-agx-orin")
    # The profile would give 16384.
    assert said["context_length"] == said["model"]["context_length"] == 8192


def test_a_profile_of_ones_own(info, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ntitle = "Mine"\n[processor]\nprefill-threads = 1\n'
    )
    said, log = info("raspberry-pi-5", profile='profile = "mine.toml"')
    assert said["board"]["profile"] == "mine"
    assert said["threads"] == 1
    assert "recognised_by=file" in lines(log, "the board is known")[0]


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("raspberry-pi-6", ["board.profile", "raspberry-pi-6", "raspberry-pi-5"]),
        ("wrong.toml", ["board.profile", "wrong.toml", "line 3", "thread"]),
        ("none.toml", ["board.profile", "none.toml", "No such file"]),
    ],
)
def test_a_wrong_profile_is_told(chaskid, run, smollm2_folder, tmp_path, profile, words):
    (tmp_path / "wrong.toml").write_text('name = "w"\ntitle = "W"\nthread = 3\n')
    config = tmp_path / "c.toml"
    config.write_text(f'[model]\nfolder = "{smollm2_folder}"\n[board]\nprofile = "{profile}"\n')
    validated = run(chaskid, "validate", config, check=False)
    assert validated.returncode == 1
    started = run(chaskid, "--config", config, check=False)
    assert started.returncode == 1
    for word in words:
        assert word in validated.stderr, validated.stderr
        assert word in started.stderr + started.stdout, started.stderr
