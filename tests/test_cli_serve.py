"""`moco-rt serve` as a process: refused in one line, with several workers, and stopped when it is told to."""

from __future__ import annotations

import httpx
import pytest
from server_samples import ServerProcess

from moco_rt import cli


@pytest.mark.usefixtures("one_thread")
def test_what_cannot_be_served_is_refused_in_one_line(tiny_folder, tmp_path, capsys):
    assert cli.main(["serve", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["serve", str(tiny_folder), "--state", str(tmp_path / "state"), "--workers", "2"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "moco-rt: state needs a model whose policy has a certified path (got none)"


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
