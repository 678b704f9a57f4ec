"""Servers and predictions that go on and on: no answer changes, no error of the server's own, nothing grows.

`MOCO_SOAK_SECONDS` and `MOCO_BAD_BODIES` say how long and how many; `make harden` takes half an hour and ten thousand.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain

import httpx
import numpy as np
import pytest
from mutations import mutated
from path_samples import with_path
from server_samples import ServerProcess, process_facts
from tier_samples import make_texts

from moco_rt import EarlyExitTextClassificationModel

SECONDS = float(os.environ.get("MOCO_SOAK_SECONDS", "4"))
BAD_BODIES = int(os.environ.get("MOCO_BAD_BODIES", "300"))
SEED = int(os.environ.get("MOCO_FUZZ_SEED", "0"))
#: Megabytes that a process may have more at the end than after the first third: arenas of threads, not rows.
GROWTH = 40

BODIES = {
    "/predict": {"inputs": [["good film"], ["a bad film", "was not good"]], "raw_scores": False, "truncate": True},
    "/": {"inputs": ["good film", "bad"], "parameters": {"top_k": 2, "function_to_apply": "softmax"}},
    "/rerank": {"query": "good", "texts": ["a film", "bad"], "raw_scores": True},
}


@pytest.fixture(scope="module")
def folder(tiny_bert, word_tokenizer, tmp_path_factory):
    fast = with_path(EarlyExitTextClassificationModel(tiny_bert(3, labels=3)))
    fast.tokenizer = word_tokenizer
    where = tmp_path_factory.mktemp("fast")
    fast.save_pretrained(where)
    return where


def client_of(server):
    return httpx.Client(base_url=server.where, timeout=60, trust_env=False)


def assert_steady(facts):
    """The last third of some facts is no more than the first third."""
    first, last = facts[len(facts) // 3], facts[-1]
    print(f"after a third {first}, at the end {last}")
    assert last["MB"] < first["MB"] + GROWTH
    assert last["files"] <= first["files"] + 4
    assert last["threads"] <= first["threads"] + 4


def hang_up(server, content):
    """Send the head of a request and half of its body, and go."""
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        lines = (
            "POST /predict HTTP/1.1",
            "Host: x",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
        )
        raw.sendall("\r\n".join((*lines, "", "")).encode() + content[: len(content) // 2])


def test_bad_bodies_cause_no_error_of_the_servers_own(folder):
    generator, facts, statuses = np.random.default_rng(SEED), [], Counter()
    with ServerProcess(folder) as server, client_of(server) as client:
        right = client.post("/predict", json=BODIES["/predict"]).text
        for number in range(BAD_BODIES):
            path = list(BODIES)[number % len(BODIES)]
            content = mutated(json.dumps(BODIES[path]).encode(), generator)
            answer = client.post(path, content=content, headers={"content-type": "application/json"})
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, (path, content)
            if answer.status_code != 200:
                assert "\n" not in answer.json()["error"], content
            if number % 20 == 0:
                hang_up(server, content)
                facts.append(server.facts())
        print(BAD_BODIES, "bodies:", dict(statuses))
        assert client.post("/predict", json=BODIES["/predict"]).text == right
    assert server.process.returncode == 0
    assert "Traceback" not in server.said
    assert_steady(facts)


def test_a_server_that_is_asked_too_much_refuses_and_recovers(folder):
    """More requests at once than it takes, again and again: each is answered right, or refused with 429."""
    with ServerProcess(folder, "--max-concurrent-requests", "4") as server, ExitStack() as stack:
        # One for each thread: threads that share one now and then lose a connection that another one closes.
        clients = [stack.enter_context(client_of(server)) for _ in range(32)]
        body = {"inputs": [[text or "a"] for text in make_texts(32)]}
        right, refused, facts, seconds = clients[0].post("/predict", json=body).text, 0, [], []

        def ask_twice(client):
            found = []
            for _ in range(2):
                began = time.monotonic()
                answer = client.post("/predict", json=body)
                found.append((answer, time.monotonic() - began))
            return found

        until = time.monotonic() + SECONDS
        with ThreadPoolExecutor(len(clients)) as pool:
            while time.monotonic() < until:
                for answer, taken in chain.from_iterable(pool.map(ask_twice, clients)):
                    assert answer.status_code in (200, 429)
                    if answer.status_code == 200:
                        assert answer.text == right
                    else:
                        refused += 1
                        seconds.append(taken)
                facts.append(server.facts())
        assert refused > 0
        print(f"{refused} refused, half of them within {1e3 * float(np.median(seconds)):.0f} ms by the clients' clocks")
        assert clients[0].post("/predict", json=body).text == right
    assert_steady(facts)


def test_predictions_go_on_without_growing(tiny_bert, word_tokenizer):
    fast = with_path(EarlyExitTextClassificationModel(tiny_bert(3, labels=3)))
    texts = make_texts(2000)
    right = fast.predict(texts, tokenizer=word_tokenizer)
    facts, until, rows = [], time.monotonic() + SECONDS, 0
    while time.monotonic() < until or len(facts) < 6:
        found = fast.predict(texts, tokenizer=word_tokenizer)
        assert found.labels.equal(right.labels)
        assert found.probs.equal(right.probs)
        rows += len(texts)
        facts.append({**process_facts(os.getpid()), "threads": threading.active_count()})
    print(f"{rows} rows")
    assert_steady(facts)
