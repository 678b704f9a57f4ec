"""Endpoints over real sockets: answers are those of the model, and bad requests get one line."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import math
import threading
import time

import httpx
import numpy as np
import pytest
import torch
from huggingface_hub import InferenceClient
from server_samples import metrics_of, running

from moco_rt import EarlyExitReranker, EarlyExitTextClassificationModel, LinearCondition
from moco_rt.certification.certificate import Certificate
from moco_rt.server.run import make_worker_app
from moco_rt.server.settings import Settings
from moco_rt.server.shared_state import SharedState, judge

TEXTS = ["a good film", "the film was not good but not bad", "bad", "", "good " * 200]


@pytest.fixture(scope="module")
def model(folder):
    return EarlyExitTextClassificationModel.from_pretrained(folder)


def labels_and_scores(answer):
    return {each["label"]: each["score"] for each in answer}


def test_answers_are_the_models_in_the_shapes_of_text_embeddings_inference(serve, folder, model):
    client = serve(folder)
    expected = model.predict(TEXTS)
    names = model.class_names
    answer = client.post("/predict", json={"inputs": [[text] for text in TEXTS]})
    assert answer.status_code == 200
    assert answer.headers["x-policy-step"] == "1"
    for said, probs in zip(answer.json(), expected.probs, strict=True):
        assert [each["score"] for each in said] == sorted((each["score"] for each in said), reverse=True)
        found = labels_and_scores(said)
        assert [found[name] for name in names] == probs.tolist()
    alone = client.post("/predict", json={"inputs": TEXTS[0]}).json()
    assert labels_and_scores(alone) == labels_and_scores(answer.json()[0])
    raw = labels_and_scores(client.post("/predict", json={"inputs": TEXTS[0], "raw_scores": True}).json())
    np.testing.assert_allclose([raw[name] for name in names], expected.probs[0].log(), rtol=1e-5)


def test_a_flat_list_of_one_string_is_one_text(serve, folder):
    client = serve(folder)
    alone, listed = (client.post("/predict", json={"inputs": inputs}) for inputs in ("a good film", ["a good film"]))
    assert listed.json() == alone.json()
    assert listed.status_code == 200
    assert metrics_of(client)['te_request_success{method="single"}'] == 2


def test_a_flat_list_of_two_strings_is_one_pair(serve, folder, model):
    client = serve(folder)
    pair = client.post("/predict", json={"inputs": ["a film", "not good"]}).json()
    batch = client.post("/predict", json={"inputs": [["a film", "not good"], ["bad"]]}).json()
    probs = model.predict([("a film", "not good")]).probs[0]
    assert labels_and_scores(pair) == labels_and_scores(batch[0])
    assert [labels_and_scores(pair)[name] for name in model.class_names] == probs.tolist()


def test_hugging_faces_client_works(serve, folder, model):
    client = InferenceClient(model=str(serve(folder).base_url))
    answer = client.text_classification(TEXTS[1])
    assert answer[0].label == model.class_names[int(model.predict(TEXTS[1:2]).labels)]
    assert len(client.text_classification(TEXTS[1], top_k=2)) == 2


def test_logits_are_told_where_they_are_asked_for_at_the_pipelines_door_too(serve, folder):
    client = serve(folder)
    raw, none = {"raw_scores": True}, {"parameters": {"function_to_apply": "none"}}
    answers = [client.post("/", json={"inputs": "good", **options}).json() for options in (raw, none, {})]
    assert answers[0] == answers[1] != answers[2]


#: Requests about two texts, of which the second may have 64 tokens here and has more.
LONG = {
    "/predict": {"inputs": [["a good film"], ["good " * 63]]},
    "/": {"inputs": ["a good film", "good " * 63]},
    "/rerank": {"query": "good", "texts": ["a good film", "good " * 61]},
}


@pytest.mark.parametrize("path", LONG)
def test_texts_that_must_not_be_cut_are_refused_where_they_would_be(serve, folder, reranker_folder, path):
    client, body = serve(reranker_folder if path == "/rerank" else folder), LONG[path]
    assert client.post(path, json=body).status_code == client.post(path, json={**body, "truncate": True}).status_code
    refused = client.post(path, json={**body, "truncate": False})
    words = "texts must have at most 64 tokens with truncate=false (got more at place 1)"
    assert (refused.status_code, refused.json()) == (413, {"error": words, "error_type": "Validation"})
    shorter = json.loads(json.dumps(body).replace("good good", "good", 1))
    assert client.post(path, json={**shorter, "truncate": False}).status_code == 200
    assert client.post(path, json=body).status_code == 200


@pytest.mark.parametrize("path", LONG)
def test_texts_are_cut_at_the_tokenizers_side_alone(serve, folder, reranker_folder, path):
    client, body = serve(reranker_folder if path == "/rerank" else folder), LONG[path]
    assert (
        client.post(path, json={**body, "truncation_direction": "Right"}).json() == client.post(path, json=body).json()
    )
    refused = client.post(path, json={**body, "truncation_direction": "Left"})
    words = "truncation_direction must be right, the side that the tokenizer cuts texts at (got Left)"
    assert (refused.status_code, refused.json()["error"]) == (422, words)


def test_parameters_that_are_not_kept_are_refused(serve, folder):
    client = serve(folder)
    refused = client.post("/", json={"inputs": "good", "parameters": {"truncation": True, "max_length": 6}})
    assert refused.status_code == 422
    assert refused.json()["error"] == "parameters.max_length: Extra inputs are not permitted"
    answers = [client.post("/", json={**LONG["/"], "parameters": {"truncation": cut}}) for cut in (True, None, False)]
    assert [answer.status_code for answer in answers] == [200, 200, 413]


@pytest.mark.parametrize(
    ("labels", "problem", "taken"),
    [
        (3, None, {"softmax", "none"}),
        (3, "multi_label_classification", {"sigmoid", "none"}),
        (1, None, {"sigmoid", "none"}),
        (1, "regression", {"none"}),
        (2, "regression", {"none"}),
    ],
)
def test_functions_that_a_model_does_not_apply_are_refused(
    serve, tiny_bert, word_tokenizer, tmp_path, labels, problem, taken
):
    tiny_bert(labels=labels, problem_type=problem).save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)
    client = serve(tmp_path)
    for function in ("softmax", "sigmoid", "none"):
        answer = client.post("/", json={"inputs": "good", "parameters": {"function_to_apply": function}})
        assert answer.status_code == (200 if function in taken else 422)
        if function not in taken:
            assert answer.json()["error"].endswith(f"(got {function})")
    assert client.post("/", json={"inputs": "good", "parameters": {}}).status_code == 200


def test_texts_are_ranked_by_a_model_with_one_label(serve, reranker_folder):
    client = serve(reranker_folder)
    model = EarlyExitReranker.from_pretrained(reranker_folder)
    expected = model.rank("a film", TEXTS)
    answer = client.post("/rerank", json={"query": "a film", "texts": TEXTS, "raw_scores": True, "return_text": True})
    for said, wanted in zip(answer.json(), expected, strict=True):
        assert said["index"] == wanted["corpus_id"]
        assert said["text"] == TEXTS[said["index"]]
        assert said["score"] == pytest.approx(wanted["score"], rel=1e-4)
    usual = client.post("/rerank", json={"query": "a film", "texts": TEXTS}).json()
    raw = client.post("/predict", json={"inputs": [["a film", text] for text in TEXTS], "raw_scores": True}).json()
    assert [each[0]["score"] for each in raw] == model.predict([("a film", text) for text in TEXTS]).scores.tolist()
    assert usual[0]["score"] == pytest.approx(1 / (1 + math.exp(-expected[0]["score"])), rel=1e-5)
    assert usual[0]["text"] is None
    assert client.get("/info").json()["model_type"].keys() == {"reranker"}


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 422, "Validation"),
        (b"", 422, "Validation"),
        (b"\xff\xfe", 422, "Validation"),
        (b"[" * 20_000, 422, "Validation"),
        (b'{"inputs": 1}', 422, "Validation"),
        (b'{"inputs": []}', 400, "Empty"),
        (b'{"inputs": [[]]}', 422, "Validation"),
        (b'{"inputs": [["a", "b", "c"]]}', 422, "Validation"),
        (b'{"inputs": ["a", "b", "c"]}', 422, "Validation"),
        (b'{"inputs": "\\ud800"}', 422, "Validation"),
        (b'{"inputs": null}', 422, "Validation"),
        (b'{"inputs": "a", "raw_scores": "maybe"}', 422, "Validation"),
        (json.dumps({"inputs": [["a"]] * 33}).encode(), 413, "Validation"),
        (b'{"inputs": "' + b"a" * 3_000_000 + b'"}', 413, "Validation"),
    ],
)
def test_bad_bodies_are_refused_in_one_line(serve, folder, body, status, kind):
    client = serve(folder)
    answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
    said = answer.json()
    assert (answer.status_code, said["error_type"]) == (status, kind)
    assert said["error"]
    assert "\n" not in said["error"]
    assert client.post("/predict", json={"inputs": "good"}).status_code == 200
    assert metrics_of(client)[f'te_request_failure{{err="{kind}"}}'] == 1


def test_a_body_without_a_length_is_counted_as_it_comes(serve, folder):
    client = serve(folder, max_bytes=1000)
    pieces = (b"x" * 300 for _ in range(100))
    assert client.post("/predict", content=pieces).status_code == 413


def test_unknown_paths_and_methods_are_refused_in_the_same_shape(serve, folder):
    client = serve(folder)
    assert client.get("/nothing").json().keys() == {"error", "error_type"}
    assert client.get("/predict").status_code == 405
    assert client.post("/rerank", json={"query": "a", "texts": ["b"]}).status_code == 424


@pytest.mark.parametrize(
    "path", ["/predict%0a", "/%0a", "/rerank%0a", "/predict%0d", "/predict/", "//predict", "/predict//"]
)
def test_a_path_that_is_almost_one_gets_no_answer(serve, folder, path):
    """A caller who is not at a door could send more than may be sent, for longer, and as one of too many."""
    client = serve(folder, max_bytes=100)
    for length in (10, 1000):
        pieces = (part for part in (b'{"inputs": "good', b" " * length, b'"}'))
        assert client.post(f"{client.base_url}{path}", content=pieces).status_code == 404


@pytest.mark.parametrize("path", ["/predict", "/", "/rerank"])
def test_routes_that_describe_doors_read_no_body(folder, path):
    """Whatever Limits let through to them."""
    app = make_worker_app(Settings(str(folder)))._app
    read = []

    async def receive():
        read.append(True)
        return {"type": "http.request", "body": b'{"inputs": "good"}'}

    async def send(message):
        said.append(message)

    said = []
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert (said[0]["status"], read) == (404, [])


def test_a_key_is_asked_for_but_for_health(serve, folder):
    client = serve(folder, api_key="secret")
    assert client.get("/health").status_code == 200
    assert client.get("/info").status_code == 401
    assert client.post("/predict", json={"inputs": "good"}).json()["error_type"] == "Unauthorized"
    with_key = {"authorization": "Bearer secret"}
    assert client.post("/predict", json={"inputs": "good"}, headers=with_key).status_code == 200


def test_info_says_what_runs(serve, folder):
    info = serve(folder, max_client_batch_size=7).get("/info").json()
    assert info["model_type"]["classifier"]["id2label"] == {"0": "bad", "1": "middling", "2": "höchst gut"}
    assert (info["model_dtype"], info["max_input_length"], info["max_client_batch_size"]) == ("float32", 64, 7)
    assert (info["policy_step"], info["certified"], info["shadow"]) == (1, False, False)


@pytest.mark.parametrize(("step", "certified"), [(1, True), (3, False)])
def test_info_says_whether_the_exits_in_use_are_certified(serve, folder, tmp_path, step, certified):
    fast = EarlyExitTextClassificationModel.from_pretrained(folder)
    fast.policy.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    fast.policy.take_step(step)
    fast.save_pretrained(tmp_path)
    assert serve(tmp_path).get("/info").json()["certified"] == certified


@pytest.mark.parametrize(("max_length", "certified"), [(None, True), (16, True), (20, False)])
def test_info_says_that_texts_which_are_cut_elsewhere_are_not_certified(serve, folder, tmp_path, max_length, certified):
    fast = EarlyExitTextClassificationModel.from_pretrained(folder)
    fast.policy.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    fast.policy.made_for["max_length"] = 16
    fast.save_pretrained(tmp_path)
    info = serve(tmp_path, max_length=max_length).get("/info").json()
    assert (info["certified"], info["max_input_length"]) == (certified, max_length or 16)


def test_many_clients_at_once_get_the_answers_they_would_get_alone(serve, folder, model):
    client = serve(folder)
    texts = [" ".join(np.random.default_rng(i).choice(["a", "good", "film", "bad", "not"], 12)) for i in range(200)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda text: client.post("/predict", json={"inputs": text}).json(), texts))
    for said, probs in zip(answers, model.predict(texts).probs, strict=True):
        assert [labels_and_scores(said)[name] for name in model.class_names] == probs.tolist()
    found = metrics_of(client)
    assert found['te_request_success{method="single"}'] == found["te_predict_count"] == 200
    assert sum(rows for name, rows in found.items() if name.startswith("moco_rt_exits")) == 200


@pytest.fixture
def gate(monkeypatch):
    """The model answers when the gate is opened."""
    gate, run = threading.Event(), EarlyExitTextClassificationModel.forward_packed

    def behind(self, rows):
        assert gate.wait(60)
        return run(self, rows)

    monkeypatch.setattr(EarlyExitTextClassificationModel, "forward_packed", behind)
    gate.set()  # for the warm-up
    yield gate
    gate.set()


def test_what_is_too_much_is_refused_at_once_and_what_was_accepted_is_answered(serve, folder, gate):
    client = serve(folder, max_concurrent_requests=2)
    gate.clear()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.post, "/predict", json={"inputs": "good"}) for _ in range(8)]
        refused = []
        for each in concurrent.futures.as_completed(asked, timeout=60):
            refused.append(each.result())
            if len(refused) == 6:
                break
        assert [answer.status_code for answer in refused] == [429] * 6
        assert refused[0].json()["error_type"] == "Overloaded"
        gate.set()
        assert [each.result().status_code for each in asked].count(200) == 2
    assert client.post("/predict", json={"inputs": "good"}).status_code == 200


def test_what_was_accepted_is_answered_before_the_server_stops(folder, gate):
    app = make_worker_app(Settings(str(folder)))
    with running(app) as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        gate.clear()
        asked = [pool.submit(client.post, "/predict", json={"inputs": "good"}) for _ in range(4)]
        while app._open < 4:
            time.sleep(0.01)
        client.server.should_exit = True
        time.sleep(0.3)
        gate.set()
        assert [each.result().status_code for each in asked] == [200] * 4
        with pytest.raises(httpx.ConnectError):
            client.get("/health")


def test_an_error_stays_with_the_request_that_it_is_about(serve, folder, monkeypatch):
    client = serve(folder)
    run = EarlyExitTextClassificationModel.forward_packed

    def picky(self, rows):
        if len(rows) and int(rows.lengths.max()) > 30:
            raise RuntimeError("too long\nfor me")
        return run(self, rows)

    monkeypatch.setattr(EarlyExitTextClassificationModel, "forward_packed", picky)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = ["good " * (50 if i == 3 else 1) for i in range(8)]
        answers = list(pool.map(lambda text: client.post("/predict", json={"inputs": text}), texts))
    assert [answer.status_code for answer in answers] == [424 if i == 3 else 200 for i in range(8)]
    assert answers[3].json() == {"error": "RuntimeError: too long for me", "error_type": "Backend"}


def test_a_shadow_answers_in_full_and_records_what_the_policy_would_have_said(serve, folder, model, tmp_path):
    model.policy.take_step(5)
    expected = model.predict(TEXTS)
    full = torch.cat([model.given.run_packed({}, rows).logits for rows in _each(model)])
    client = serve(folder, shadow=str(tmp_path / "shadow.jsonl"), state=str(_state(tmp_path, 5)))
    model.policy.take_step(1)
    answer = client.post("/predict", json={"inputs": [[text] for text in TEXTS]})
    assert "x-policy-step" not in answer.headers
    for said, probs in zip(answer.json(), full.softmax(dim=1), strict=True):
        found = labels_and_scores(said)
        np.testing.assert_allclose([found[name] for name in model.class_names], probs, rtol=1e-4, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "shadow.jsonl").read_text().splitlines()]
    assert [line["policy_label"] for line in lines] == [row["label"] for row in expected]
    assert [line["exit"] for line in lines] == [row["exit"] for row in expected]
    assert [line["same"] for line in lines] == [line["label"] == line["policy_label"] for line in lines]
    assert metrics_of(client)["moco_rt_shadow_disagreed"] == sum(not line["same"] for line in lines)


def _each(model):
    from moco_rt.runtime.prediction import tokeniser_of

    encoded = tokeniser_of(model, None, None)(TEXTS)
    return [encoded.take(np.array([place])) for place in range(len(TEXTS))]


def _state(tmp_path, step):
    state = tmp_path / "state"
    state.mkdir()
    (state / "step").write_text(f"{step}\n")
    return state


def test_the_step_can_be_set_from_outside(serve, folder, tmp_path):
    state = _state(tmp_path, 2)
    client = serve(folder, state=str(state))
    assert client.post("/predict", json={"inputs": "good"}).headers["x-policy-step"] == "2"
    (state / "step").write_text("0")
    deadline = time.monotonic() + 30
    while client.get("/info").json()["policy_step"] != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (state / "step").write_text("99")  # is said in the log, and changes nothing
    time.sleep(1.5)
    assert client.post("/predict", json={"inputs": "good"}).headers["x-policy-step"] == "0"


def workers(folder, state, count, step=4):
    """Models that meet in a folder, with monitors that check all rows."""
    models = [EarlyExitTextClassificationModel.from_pretrained(folder) for _ in range(count)]
    for model in models:
        model.policy.take_step(step)
        model.monitor(1.0, delta=0.05)
    return models, [SharedState(state, model) for model in models]


def see(model, wrong, rows=60):
    """Let a model's monitor see rows of its first exit."""
    model._monitor.record_checks(np.zeros(rows, np.int64), np.arange(rows) < wrong, model.policy.step)


def test_workers_that_have_seen_too_much_together_step_back_together(folder, tmp_path):
    models, states = workers(folder, tmp_path, 3)
    for model, state in zip(models, states, strict=True):
        see(model, 4)  # too few for an alarm of its own, at a promise of 2%
        state.exchange()
    assert models[2].policy.step < 4
    for state in states:
        state.exchange()
    assert {model.policy.step for model in models} == {models[2].policy.step}


@pytest.mark.parametrize("written", [True, False])
def test_an_alarm_of_one_worker_is_everybodys(folder, tmp_path, written):
    if written:
        (tmp_path / "step").write_text("4")
    models, states = workers(folder, tmp_path, 2)
    for state in states:
        state.exchange()
    see(models[0], 30)
    assert models[0].policy.step == 4  # it only counts
    states[0].exchange()
    step = models[0].policy.step
    assert step < 4
    for _ in range(2):
        for state in states:
            state.exchange()
    assert [model.policy.step for model in models] == [step, step]
    (tmp_path / "step").write_text("3\n")  # somebody knows better
    for state in states:
        state.exchange()
    assert [model.policy.step for model in models] == [3, 3]


def test_a_worker_that_has_seen_more_errors_than_all_together_is_no_alarm(folder, tmp_path):
    models, states = workers(folder, tmp_path, 3)
    for model, wrong in zip(models, (16, 0, 0), strict=True):
        see(model, wrong, 300)
    seen = [model._monitor.state() for model in models]
    assert judge(models[0]._monitor, models[0].policy, seen[:1]).step < 4
    assert judge(models[0]._monitor, models[0].policy, seen).step == 4
    for _ in range(2):
        for state in reversed(states):
            state.exchange()
    assert [model.policy.step for model in models] == [4, 4, 4]


def test_where_the_folder_cannot_be_read_a_worker_judges_what_it_has_seen(folder, tmp_path):
    models, states = workers(folder, tmp_path, 1)
    (tmp_path / "monitor-x.json").write_text("[]")
    see(models[0], 30)
    states[0].try_to_exchange()
    step = models[0].policy.step
    assert step < 4
    (tmp_path / "monitor-x.json").unlink()
    states[0].exchange()
    assert (tmp_path / "step").read_text().split()[0] == str(step)


@pytest.mark.parametrize("written", [True, False])
def test_a_step_of_another_certificate_does_not_count(folder, tmp_path, written):
    if written:
        (tmp_path / "step").write_text("3")  # by somebody, for the policy that is served then
    models, states = workers(folder, tmp_path, 1)
    states[0].exchange()
    if not written:
        models[0].policy.take_step(3)
        states[0].exchange()
    assert models[0].policy.step == 3
    later, (state,) = workers(folder, tmp_path, 1, step=1)
    later[0].policy.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    state = SharedState(tmp_path, later[0])
    state.exchange()
    assert later[0].policy.step == 1
    (tmp_path / "step").write_text("2")
    state.exchange()
    assert later[0].policy.step == 2
    states[0].exchange()
    assert models[0].policy.step == 3


def test_evidence_of_before_a_new_certificate_does_not_count(folder, tmp_path):
    models, states = workers(folder, tmp_path, 2)
    later = EarlyExitTextClassificationModel.from_pretrained(folder)
    later.policy.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    later.policy.take_step(4)
    later.monitor(1.0)
    for model, state in zip([*models, later], [*states, SharedState(tmp_path, later)], strict=True):
        see(model, 4)  # all together would be too many
        state.exchange()
    assert later.policy.step == 4


@pytest.mark.parametrize(("step", "said"), [(1, "policy: step 1"), (3, "policy: step 3, which the certificate is not")])
def test_a_step_that_is_not_certified_is_said_to_be_none(folder, tmp_path, caplog, step, said):
    models, states = workers(folder, tmp_path, 1)
    models[0].policy.certificate = Certificate(0.1, 0.05, 1000, 2, 1.0, 0.6, ())
    (tmp_path / "step").write_text(str(step))
    with caplog.at_level("INFO", "moco_rt"):
        states[0].exchange()
    assert models[0].policy.step == step
    assert caplog.messages[-1].startswith(said)
    assert len(caplog.messages[-1]) == len(said) or step == 3


def test_evidence_is_counted_once_and_of_this_policy_alone(folder, tmp_path):
    models, states = workers(folder, tmp_path, 1)
    see(models[0], 4)
    model = EarlyExitTextClassificationModel.from_pretrained(folder)
    model.policy.take_step(4)
    model.monitor(1.0, delta=0.05).restore(models[0]._monitor.state())
    later = [SharedState(tmp_path, model) for _ in range(3)]  # what stands with the model is not theirs
    for state in (*states, *later):
        state.exchange()
    assert model.policy.step == 4
    see(model, 1, 5)
    assert later[0]._seen(model._monitor)["rows"][0] == 5
    (tmp_path / "monitor-of-another.json").write_text(
        json.dumps({"identity": "another", "step": 4, "rows": [99], "wrong": [99]})
    )
    states[0].exchange()
    assert models[0].policy.step == 4


def test_strange_files_in_the_folder_are_told_of_once(folder, tmp_path, caplog):
    _, (state,) = workers(folder, tmp_path, 1)
    (tmp_path / "monitor-x.json").write_text("[]")
    for _ in range(3):
        state.try_to_exchange()
    assert [
        record.getMessage().endswith("must be what a worker wrote (got TypeError)") for record in caplog.records
    ] == [True]
    models, (state,) = workers(folder, tmp_path / "other", 1)
    (tmp_path / "other" / "step").write_text("0")  # nobody leaves at all
    state.exchange()
    state.exchange()
    assert models[0].policy.step == 0


def test_what_a_server_cannot_share_is_refused(tiny_bert, tmp_path, one_line_error, folder):
    plain = EarlyExitTextClassificationModel(tiny_bert())
    with one_line_error(ValueError, "state needs a model whose policy has a certified path (got none)"):
        SharedState(tmp_path, plain)
    added = EarlyExitTextClassificationModel.from_pretrained(folder)
    added.add_rule(LinearCondition(np.zeros(added.config.hidden_size), 1.0, 0.0, 0.1), 1, "embeddings")
    with one_line_error(
        ValueError, "state needs a policy that is a step of its path (got one with exits added by hand)"
    ):
        SharedState(tmp_path, added)
    (tmp_path / "step").write_text("two")
    with one_line_error(ValueError, f"{tmp_path / 'step'} must hold the number of a step (got 'two')"):
        SharedState(tmp_path, EarlyExitTextClassificationModel.from_pretrained(folder)).exchange()
