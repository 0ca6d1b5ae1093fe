"""Fixtures shared by the integration tests.

Nothing here skips: a program that is not built, a package that is not
installed or a download that fails is a failed test that says what is missing.
"""

import pytest

from tools import mosquitto as mosquitto_tool
from tools import smollm2
from tools.daemon import Chaskid
from tools.programs import Binaries, release_program, run as run_program


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The built programs: `.quantize`, `.chaskid` and `.chaski`."""
    return Binaries(
        quantize=release_program("chaski-quantize"),
        chaskid=release_program("chaskid"),
        chaski=release_program("chaski"),
    )


@pytest.fixture(scope="session")
def chaski_quantize():
    """The path of `chaski-quantize` alone."""
    return release_program("chaski-quantize")


@pytest.fixture(scope="session")
def chaski():
    """The path of `chaski` alone."""
    return release_program("chaski")


@pytest.fixture(scope="session")
def chaskid():
    """The path of `chaskid` alone."""
    return release_program("chaskid")


@pytest.fixture(scope="session")
def run():
    """`run(program, *arguments, check=True, timeout=300, input=None, env=None, cwd=None)`."""
    return run_program


@pytest.fixture(scope="session")
def smollm2_gguf():
    """SmolLM2-135M-Instruct as a Q4_1 GGUF file, its hash checked."""
    return smollm2.fetch()


@pytest.fixture(scope="session")
def smollm2_folder(smollm2_gguf, chaski_quantize, tmp_path_factory):
    """The model folder `chaski-quantize` makes of the GGUF file as it is: Q4_1, Q8_0."""
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    run_program(
        chaski_quantize, smollm2_gguf, "-o", folder, "--embedding-bits", "8", timeout=600
    )
    return folder


@pytest.fixture(scope="session")
def smollm2_symmetric_folder(smollm2_gguf, chaski_quantize, tmp_path_factory):
    """The same model, quantised again without zero points."""
    folder = tmp_path_factory.mktemp("smollm2-symmetric") / "model"
    run_program(
        chaski_quantize, smollm2_gguf, "-o", folder, "--scheme", "symmetric", timeout=600
    )
    return folder


@pytest.fixture
def free_port():
    """A function that gives a free TCP port of the loopback interface."""
    return mosquitto_tool.free_port


@pytest.fixture
def mosquitto(tmp_path_factory):
    """A factory of started brokers: `mosquitto(port=None, config="", start=True)`.

    A broker has `.host`, `.port`, `.start()`, `.stop()`, `.kill()`,
    `.restart()` and `.log()`; all are ended with the test.
    """
    brokers = []

    def factory(port=None, config="", start=True):
        broker = mosquitto_tool.Mosquitto(tmp_path_factory.mktemp("mosquitto"), port, config)
        brokers.append(broker)
        return broker.start() if start else broker

    yield factory
    for broker in brokers:
        broker.stop()


@pytest.fixture
def node(mosquitto, chaskid, smollm2_folder, tmp_path):
    """A factory of daemons that are online, each at a broker of its own: `node(metrics="…")`.

    `broker` is configuration of the broker, all others are sections of the daemon's. A
    daemon has its `.broker` and the broker's `.port`.
    """
    daemons = []

    def factory(name="board", broker="", **sections) -> Chaskid:
        at = mosquitto(config=broker)
        daemon = Chaskid(chaskid, tmp_path, smollm2_folder, at.port, name, **sections)
        daemon.port, daemon.broker = at.port, at
        daemons.append(daemon.start())
        daemon.wait_for_log("connected and subscribed")
        return daemon

    yield factory
    for daemon in daemons:
        daemon.stop()
