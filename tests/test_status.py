"""`chaski status`: whether a board's node is online, by the daemon's own configuration."""

import subprocess

from tools.programs import run


def test_a_node_that_comes_and_goes(node, chaski):
    daemon = node()
    status = (chaski, "status", "--config", daemon.config_file)
    assert "board is online" in run(*status).stdout
    assert daemon.terminate() == 0
    offline = run(*status, check=False)
    assert offline.returncode == 1 and "board" in offline.stderr
    late = run(*status, "--wait", "1", check=False)
    assert late.returncode == 1 and "did not come online in 1 s" in late.stderr
    waiting = subprocess.Popen([*status, "--wait", "60"], stdout=subprocess.PIPE, text=True)
    daemon.start()
    said, _ = waiting.communicate(timeout=90)
    assert waiting.returncode == 0 and "board is online" in said


def test_a_broker_that_is_away(node, chaski):
    daemon = node()
    daemon.broker.stop()
    refused = run(chaski, "status", "--config", daemon.config_file, check=False)
    assert refused.returncode == 1 and str(daemon.port) in refused.stderr
