"""`moco-rt serve` as a process: refused in one line, with several workers, and stopped when it is told to."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from moco_rt import cli


@pytest.mark.usefixtures("one_thread")
def test_what_cannot_be_served_is_refused_in_one_line(tiny_folder, tmp_path, capsys):
    assert cli.main(["serve", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["serve", str(tiny_folder), "--state", str(tmp_path / "state"), "--workers", "2"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "moco-rt: state needs a model whose policy has a certified path (got none)"


def test_workers_share_a_port_and_tell_their_sums(tiny_folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moco_rt", "serve", str(tiny_folder), "--port", str(port), "--workers", "2"]
    server = subprocess.Popen([*command, "--api-key", "secret"], stderr=subprocess.PIPE, text=True)
    try:
        # A connection for each request: the workers take them in turns.
        client = {
            "headers": {"authorization": "Bearer secret", "connection": "close"},
            "timeout": 60,
            "trust_env": False,
        }
        where = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while server.poll() is None and time.monotonic() < deadline:
            try:
                if httpx.get(f"{where}/health", **client).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        answers = [httpx.post(f"{where}/predict", json={"inputs": "a good film"}, **client) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20
        assert len({answer.text for answer in answers}) == 1
        assert "\nte_predict_count 20.0\n" in httpx.get(f"{where}/metrics", **client).text
    finally:
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=60)[1]
    assert server.returncode == 0
    assert "moco-rt: stopped" in said
