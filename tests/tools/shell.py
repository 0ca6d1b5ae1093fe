"""Commands of an example, run by bash as they stand, against a broker of the test's."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .mosquitto import Mosquitto

_WRAPPER = """#!/bin/sh
# At the test's broker, once all subscriptions are made that the example makes before.
tries=0
if [ {name} != mosquitto_sub ]; then
  until [ "$(grep -c 'Sending SUBACK' {log})" -ge "$SUBSCRIPTIONS" ]; do
    tries=$((tries + 1))
    [ $tries -lt 1000 ] || {{ echo 'no subscription' >&2; exit 1; }}
    sleep 0.02
  done
fi
exec stdbuf -oL {program} -h {host} -p {port} "$@"
"""


class Shell:
    """Mosquitto's programs mean this broker, without saying so."""

    def __init__(self, folder: Path, broker: Mosquitto):
        self.folder = folder
        self.broker = broker
        for name in ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr"):
            program = shutil.which(name)
            if program is None:
                raise FileNotFoundError(f"{name} is missing: apt-get install mosquitto-clients")
            wrapper = folder / name
            words = {"host": broker.host, "port": broker.port, "log": broker.log_file}
            wrapper.write_text(_WRAPPER.format(name=name, program=program, **words))
            wrapper.chmod(0o755)

    def run(
        self, commands: str, done: Callable[[list[str]], bool] = bool, timeout: float = 120
    ) -> list[str]:
        """The lines that come until they are `done`; what still runs then is ended."""
        waits_for = len(re.findall(r"mosquitto_sub .*&$", commands, re.MULTILINE))
        subscriptions = self.broker.log().count("Sending SUBACK") + waits_for
        output, problems = self.folder / "output", self.folder / "problems"
        environment = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "SUBSCRIPTIONS": str(subscriptions),
        }
        with output.open("wb") as out, problems.open("wb") as err:
            process = subprocess.Popen(
                ["bash", "-e", "-c", commands],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                # A group of its own, which has its background jobs as well.
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        try:
            code = process.wait(timeout)
            while code == 0 and not done(_lines(output)):
                assert time.monotonic() < deadline, f"only {_lines(output)} from:\n{commands}"
                time.sleep(0.02)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        said = problems.read_text()
        assert (code, said) == (0, ""), f"{code} and {said!r} from:\n{commands}"
        return _lines(output)


def _lines(file: Path) -> list[str]:
    """Whole lines only."""
    return file.read_text(encoding="utf-8").split("\n")[:-1]
