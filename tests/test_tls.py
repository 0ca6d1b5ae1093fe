"""chaskid at a Mosquitto with TLS: whom it believes, who it is, and what it says when not."""

from types import SimpleNamespace

import pytest

from tools.certificates import Authority
from tools.daemon import Chaskid
from tools.mosquitto import Mosquitto, free_port
from tools.mqtt_client import Client

UP = "connected and subscribed"
PASSWORD = "hunter2-xyzzy"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Who signed the certificates of the brokers and clients here."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificates(authority):
    """Of brokers: `.good`, `.expired`, `.elsewhere`; of a client: `.client`."""
    here = "DNS:localhost,IP:127.0.0.1"
    return SimpleNamespace(
        good=authority.sign("good", here),
        expired=authority.sign("expired", here, days=-1),
        elsewhere=authority.sign("elsewhere", "DNS:broker.example"),
        client=authority.sign("client", "DNS:client"),
    )


@pytest.fixture
def tls_broker(mosquitto, authority, certificates):
    """A factory of brokers that listen in clear at `.port` and with TLS at `.tls_port`."""

    def factory(name: str = "good", listener: str = "", config: str = "") -> Mosquitto:
        port = free_port()
        signed = getattr(certificates, name)
        # The lines before a listener are for all of them.
        broker = mosquitto(
            config=f"{config}\nlistener {port} 127.0.0.1\n"
            f"cafile {authority.certificate}\n"
            f"certfile {signed.certificate}\nkeyfile {signed.key}\n{listener}"
        )
        broker.tls_port = port
        return broker

    return factory


@pytest.fixture
def daemon(chaskid, smollm2_folder, tmp_path, authority):
    """A factory of daemons that believe the authority: `daemon(broker, "alpn = []")`."""
    daemons = []

    def factory(broker: Mosquitto, *lines: str, ca=authority.certificate, host="127.0.0.1"):
        name = f"tls{len(daemons)}"
        daemon = Chaskid(chaskid, tmp_path, smollm2_folder, broker.tls_port, name)
        text = daemon.config_file.read_text().replace('host = "127.0.0.1"', f'host = "{host}"')
        section = "\n".join(["[broker]", "tls = true", f'ca-file = "{ca}"', *lines])
        daemon.config_file.write_text(text.replace("[broker]", section))
        daemons.append(daemon)
        return daemon.start()

    yield factory
    for daemon in daemons:
        daemon.stop()


def own(signed) -> tuple[str, str]:
    """The lines for a certificate of the daemon's own."""
    return f'client-cert-file = "{signed.certificate}"', f'client-key-file = "{signed.key}"'


def assert_refused(daemon: Chaskid, *words: str) -> None:
    daemon.wait_for_log("no connection to the broker")
    for word in words:
        assert word in daemon.log(), daemon.log()
    assert UP not in daemon.log()


def test_an_answer_through_tls(tls_broker, daemon):
    broker = tls_broker()
    node = daemon(broker, 'alpn = ["mqtt"]', host="localhost")
    node.wait_for_log(UP)
    with Client(broker.port) as client:
        client.subscribe("me/inbox")
        question = "What is the capital of Peru?"
        client.publish(node.topic("ask"), question, "me/inbox")
        assert b"Lima" in client.next().payload


def test_ask_speaks_tls(tls_broker, daemon, chaski, run, authority, certificates, tmp_path):
    broker = tls_broker(listener="require_certificate true\n")
    node = daemon(broker, *own(certificates.client))
    node.wait_for_log(UP)
    signed = certificates.client
    tls = ["--tls", "--ca-file", authority.certificate]
    own_files = ["--client-cert-file", signed.certificate, "--client-key-file", signed.key]

    def ask(*options, check=False):
        address = ["--host", "127.0.0.1", "--port", str(broker.tls_port), "--node", node.node]
        return run(chaski, "ask", "What is the capital of Peru?", *address, *options, check=check)

    assert "Lima" in ask(*tls, *own_files, check=True).stdout
    stranger = Authority(tmp_path / "stranger").certificate
    for options, words in [
        (["--tls", "--ca-file", stranger, *own_files], ["certificate", "--ca-file"]),
        (tls, ["--client-cert-file"]),
        ([], ["--tls"]),
        (["--tls", "--ca-file", "nowhere"], ["--ca-file", "nowhere"]),
    ]:
        refused = ask(*options)
        assert refused.returncode == 1, options
        for word in words:
            assert word in refused.stderr, refused.stderr


def test_a_broker_that_somebody_else_signed(tls_broker, daemon, tmp_path):
    for number, (name, problem) in enumerate(
        # Another of the same name is found out by the signature.
        [("somebody else", "UnknownIssuer"), ("test authority", "BadSignature")]
    ):
        stranger = Authority(tmp_path / f"stranger{number}", name)
        node = daemon(tls_broker(), ca=stranger.certificate)
        assert_refused(node, problem, "broker.ca-file")


def test_a_broker_of_another_name(tls_broker, daemon):
    node = daemon(tls_broker("elsewhere"))
    assert_refused(node, "broker.host", "broker.example")


def test_a_broker_whose_certificate_has_expired(tls_broker, daemon):
    node = daemon(tls_broker("expired"))
    assert_refused(node, "Expired", "renew the broker's certificate")


def test_a_broker_without_tls(mosquitto, daemon):
    broker = mosquitto()
    broker.tls_port = broker.port
    assert_refused(daemon(broker), "broker.port")


def test_a_broker_that_wants_a_certificate(tls_broker, daemon, certificates):
    broker = tls_broker(listener="require_certificate true\n")
    without = daemon(broker)
    assert_refused(without, "broker.client-cert-file")
    node = daemon(broker, *own(certificates.client))
    node.wait_for_log(UP)
    key_lines = certificates.client.key.read_text().splitlines()[1:-1]
    assert not any(line in node.log() for line in key_lines)


def test_a_certificate_that_the_broker_does_not_believe(tls_broker, daemon, tmp_path):
    broker = tls_broker(listener="require_certificate true\n")
    stranger = Authority(tmp_path / "stranger", "somebody else").sign("stranger", "DNS:client")
    assert_refused(daemon(broker, *own(stranger)), "broker.client-cert-file")


def test_username_and_password_from_one_file(tls_broker, daemon, run, tmp_path):
    accounts = tmp_path / "accounts"
    run("mosquitto_passwd", "-b", "-c", accounts, "chaski", PASSWORD)
    broker = tls_broker(config=f"allow_anonymous false\npassword_file {accounts}\n")
    credentials = tmp_path / "credentials"
    credentials.write_text(f'username = "chaski"\npassword = "{PASSWORD}"\n')
    credentials.chmod(0o644)
    node = daemon(broker, 'credentials-file = "credentials"')
    node.wait_for_log(UP)
    assert "every user of this machine can read" in node.log()
    credentials.write_text(f'username = "chaski"\npassword = "{PASSWORD}-wrong"\n')
    credentials.chmod(0o600)
    stranger = daemon(broker, 'credentials-file = "credentials"')
    assert_refused(stranger, "check username, password")
    assert "can read" not in stranger.log()
    assert PASSWORD not in node.log() + stranger.log()


# The command line.


@pytest.fixture
def validate(chaskid, run, smollm2_folder, tmp_path):
    """Runs `chaskid validate` with these lines in `[broker]`: the result."""

    def check(*lines: str, env=None):
        file = tmp_path / "c.toml"
        broker = "\n".join(lines)
        file.write_text(f'[model]\nfolder = "{smollm2_folder}"\n[broker]\n{broker}\n')
        return run(chaskid, "validate", file, check=False, env=env)

    return check


def test_validate_reads_the_files(validate, authority, certificates, tmp_path):
    tls = ("tls = true", f'ca-file = "{authority.certificate}"')
    good = validate(*tls, *own(certificates.client))
    assert good.returncode == 0 and good.stdout.endswith(": valid\n"), good.stderr

    (tmp_path / "empty").write_text("")
    other_key = f'client-key-file = "{certificates.good.key}"'
    certificate, _ = own(certificates.client)
    for lines, words in [
        (("tls = true", 'ca-file = "nowhere"'), ["broker.ca-file", "nowhere"]),
        (("tls = true", 'ca-file = "empty"'), ["broker.ca-file", "BEGIN CERTIFICATE"]),
        ((*tls, certificate, other_key), ["broker.client-key-file", "client-cert-file"]),
        ((*tls, certificate, 'client-key-file = "empty"'), ["broker.client-key-file", "PEM"]),
        ((*tls, certificate), ["broker.client-key-file", "missing"]),
        (('ca-file = "empty"',), ["broker.ca-file", "broker.tls"]),
        ((*tls, 'host = "::1"'), ["broker.host", "IPv6"]),
        (('credentials-file = "empty"',), ["broker.credentials-file", 'username = "…"']),
        (('credentials-file = "$CREDENTIALS_DIRECTORY/x"',), ["broker.credentials-file", "/x"]),
    ]:
        bad = validate(*lines)
        assert bad.returncode == 1, lines
        for word in words:
            assert word in bad.stderr, bad.stderr


def test_validate_finds_the_credentials_of_systemd(validate, tmp_path):
    folder = tmp_path / "of-systemd"
    folder.mkdir()
    (folder / "broker").write_text(f"username = 'u'\npassword = {PASSWORD}\n")
    line = 'credentials-file = "$CREDENTIALS_DIRECTORY/broker"'
    bad = validate(line, env={"CREDENTIALS_DIRECTORY": str(folder)})
    assert bad.returncode == 1
    assert "of-systemd/broker, line 2" in bad.stderr and PASSWORD not in bad.stderr
    (folder / "broker").write_text(f"username = 'u'\npassword = '{PASSWORD}'\n")
    good = validate(line, env={"CREDENTIALS_DIRECTORY": str(folder)})
    assert good.returncode == 0, good.stderr
