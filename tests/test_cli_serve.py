"""`moco-rt serve` as a process: refused in one line, with several workers, and stopped when it is told to."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import httpx
import pytest
from server_samples import ServerProcess

from moco_rt import cli
from moco_rt.server import run
from moco_rt.server.settings import Settings


@pytest.mark.usefixtures("one_thread")
def test_what_cannot_be_served_is_refused_in_one_line(tiny_folder, tmp_path, capsys):
    assert cli.main(["serve", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["serve", str(tiny_folder), "--state", str(tmp_path / "state"), "--workers", "2"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "moco-rt: state needs a model whose policy has a certified path (got none)"


@pytest.mark.parametrize("wait", ["inf", "1e13", "60001"])
def test_waits_of_more_than_a_minute_are_refused(wait, tiny_folder, capsys):
    assert cli.main(["serve", str(tiny_folder), "--max-wait-ms", wait]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"moco-rt: max_wait_ms must be from 0 to 60,000 (got {float(wait)})"


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), -1.0])
def test_settings_refuse_waits_that_are_no_times(wait, one_line_error):
    with one_line_error(ValueError, f"max_wait_ms must be from 0 to 60,000 (got {wait})"):
        Settings("model", max_wait_ms=wait)


@pytest.mark.parametrize("key", ["", " "])
def test_an_empty_key_is_refused_wherever_it_is_given(key, tiny_folder, monkeypatch, capsys):
    words = f"moco-rt: api_key must not be empty (got {key!r})"
    assert cli.main(["serve", str(tiny_folder), "--api-key", key]) == 2
    assert capsys.readouterr().err.splitlines() == [words]
    monkeypatch.setenv("MOCO_RT_API_KEY", key)
    assert cli.main(["serve", str(tiny_folder)]) == 2
    assert capsys.readouterr().err.splitlines() == [words]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_that_cannot_be_had_is_refused_before_a_model_is_loaded(workers, monkeypatch, capsys, tiny_folder):
    def never(_):
        raise AssertionError

    monkeypatch.setattr(run, "_load", never)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", str(tiny_folder), "--port", port, "--workers", workers]) == 2
    words = f"moco-rt: host and port must be this machine's and free (got 127.0.0.1:{port}: Address already in use)\n"
    assert capsys.readouterr().err == words
    assert cli.main(["serve", str(tiny_folder), "--host", "192.0.2.1", "--workers", workers]) == 2
    assert capsys.readouterr().err.count("\n") == 1


#: A server to which a signal comes when a function is called.
SIGNALLED = """
import signal, sys
from moco_rt import cli
from moco_rt.server import run
from moco_rt.server.settings import Settings
number, where, name, folder, workers = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
owner = getattr(run, where) if where else run
usual = getattr(owner, name)
def signalled(*args, **kwargs):
    signal.raise_signal(int(number))
    return usual(*args, **kwargs)
setattr(owner, name, signalled)
sys.exit(cli.main(["serve", folder, "--port", "0", "--workers", workers]))
"""


@pytest.mark.parametrize(
    ("number", "where", "name", "workers"),
    [
        (signal.SIGTERM, "Served", "warm_up", 1),
        (signal.SIGINT, "", "make_app", 1),
        (signal.SIGTERM, "_Server", "run", 1),
        (signal.SIGINT, "_Server", "run", 1),
        (signal.SIGTERM, "Multiprocess", "run", 2),
    ],
)
def test_a_signal_ends_a_server_before_it_serves(number, where, name, workers, tiny_folder):
    command = [sys.executable, "-c", SIGNALLED, str(int(number)), where, name, str(tiny_folder), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, -number, 128 + number)
    assert "Traceback" not in done.stderr
    if workers == 1:
        assert "running on" not in done.stderr


def test_a_free_port_is_told_and_answers(tiny_folder):
    command = [sys.executable, "-m", "moco_rt", "serve", str(tiny_folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        where = next(line for line in process.stderr if "running on" in line).split()[-1]
        assert httpx.get(f"{where}/health", timeout=60, trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert said.endswith("moco-rt: stopped\n")


def test_workers_share_a_port_and_tell_their_sums(tiny_folder):
    with ServerProcess(tiny_folder, "--workers", "2", "--api-key", "secret") as server:
        # A connection for each request: the workers take them in turns.
        headers = {"authorization": "Bearer secret", "connection": "close"}
        client = {"headers": headers, "timeout": 60, "trust_env": False}
        body = {"inputs": "a good film"}
        answers = [httpx.post(f"{server.where}/predict", json=body, **client) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20
        assert len({answer.text for answer in answers}) == 1
        assert "\nte_predict_count 20.0\n" in httpx.get(f"{server.where}/metrics", **client).text
    assert server.process.returncode == 0
    assert "moco-rt: stopped" in server.said
