"""The endpoints: requests to inputs of a batch, and what comes back to the bodies of answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi.responses import Response

import moco_rt
from moco_rt.inputs.texts import TextInput, lone_surrogate
from moco_rt.ranking.candidates import Candidates
from moco_rt.server.answering import Scores, Served, raw_scores
from moco_rt.server.batching import Batcher, Job
from moco_rt.server.metrics import Metrics
from moco_rt.server.refusals import RefusedError, as_refusal, json_response
from moco_rt.server.settings import Settings
from moco_rt.server.shapes import Info, PipelineParameters, PipelineRequest, PredictRequest, RerankRequest, TextsRequest

#: Characters of a token, about: batches are made before texts are tokenised.
_CHARACTERS = 4


class Endpoints:
    """The endpoints of a server, one method each."""

    def __init__(self, served: Served, settings: Settings, batcher: Batcher, metrics: Metrics):
        self._served, self._settings, self._batcher, self._metrics = served, settings, batcher, metrics
        config = served.model.config
        self._labels = served.labels
        self._numbers = config.problem_type == "regression"
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        #: What a pipeline of transformers may be told to apply here.
        self._functions = ["none"] if self._numbers else ["sigmoid" if several else "softmax", "none"]

    async def predict(self, body: PredictRequest) -> Response:
        """Label texts and pairs: all classes with their probabilities, the most probable first."""
        batch = isinstance(body.inputs, list) and not isinstance(next(iter(body.inputs), []), str)
        given: Sequence[Any] = body.inputs if batch else [body.inputs]
        texts: list[TextInput] = [_text_or_pair(each) for each in given]
        job, scores = await self._run(body, texts, "batch" if batch else "single")
        said = [self._all_labels(each, raw=body.raw_scores) for each in scores]
        return self._answer(said if batch else said[0], job, scores[0].step)

    async def pipeline(self, body: PipelineRequest) -> Response:
        """Label texts as the pipelines of transformers do it, for Hugging Face's inference clients."""
        texts: list[TextInput] = [body.inputs] if isinstance(body.inputs, str) else list(body.inputs)
        parameters = body.parameters or PipelineParameters()
        wished = parameters.function_to_apply
        if wished not in (None, *self._functions):
            possible = " or ".join(self._functions)
            raise RefusedError("Validation", f"function_to_apply must be {possible} (got {wished})")
        if parameters.truncation is not None:
            body = body.model_copy(update={"truncate": parameters.truncation})
        job, scores = await self._run(body, texts, "batch")
        raw = body.raw_scores or wished == "none"
        said = [self._all_labels(each, raw=raw)[: parameters.top_k] for each in scores]
        return self._answer(said, job, scores[0].step)

    async def rerank(self, body: RerankRequest) -> Response:
        """Rank texts by their relevance to a query, the most relevant first."""
        if self._served.model.config.num_labels != 1:
            raise RefusedError("Backend", "rerank needs a model with one label (this one has classes: use /predict)")
        if body.scores is not None and len(body.scores) != (count := len(body.texts)):
            words = f"scores must be one number for each of the {count} texts (got {len(body.scores)})"
            raise RefusedError("Validation", words)
        pairs: list[TextInput] = [(body.query, text) for text in body.texts]
        if self._served.ranks_early:
            await self._check(body, pairs)
            scores_of_search = None if body.scores is None else np.asarray(body.scores, np.float32)
            candidates = Candidates(body.query, body.texts, scores_of_search)
            job, found = await self._take([candidates], _tokens(body.texts))
            # Of those that left early there are estimates, on scales of their own: their order alone is right.
            ranked = [(each["corpus_id"], each["score"]) for each in found[0]]
            self._metrics.answered(job, "batch", time.monotonic() - job.arrived, [each["exit"] for each in found[0]])
        else:
            job, scores = await self._run(body, pairs, "batch")
            logits = [(each.logits or each.values)[0] for each in scores]
            ranked = sorted(enumerate(logits), key=lambda pair: -pair[1])
        _check_finite([score for _, score in ranked])
        if not body.raw_scores and not self._numbers:
            ranked = [(place, _sigmoid(score)) for place, score in ranked]
        texts = body.texts if body.return_text else [None] * len(body.texts)
        return self._answer([{"index": place, "score": score, "text": texts[place]} for place, score in ranked], job)

    async def info(self) -> Info:
        """Return what runs, and within which limits."""
        config, settings = self._served.model.config, self._settings
        numbers = {str(number): name for number, name in enumerate(self._labels)}
        classes = {"id2label": numbers, "label2id": {name: int(number) for number, name in numbers.items()}}
        return Info(
            model_id=settings.model,
            model_dtype=self._served.dtype,
            served_model_name=settings.model,
            model_type={"reranker" if config.num_labels == 1 else "classifier": classes},
            max_concurrent_requests=settings.max_concurrent_requests,
            max_input_length=self._served.max_length,
            max_batch_tokens=settings.max_batch_tokens,
            max_client_batch_size=settings.max_client_batch_size,
            version=moco_rt.__version__,
            policy_step=self._served.step,
            certified=self._served.is_certified,
            shadow=self._served.shadowed,
        )

    async def health(self) -> Response:
        """Say whether requests are answered."""
        if not self._batcher.alive:
            raise RefusedError("Unhealthy", "the server is shutting down")
        return Response()

    async def metrics(self) -> Response:
        """Return counts for Prometheus."""
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _run(self, body: TextsRequest, texts: Sequence[TextInput], method: str) -> tuple[Job, Sequence[Scores]]:
        """Answer the texts of a request, and count it."""
        await self._check(body, texts)
        job, scores = await self._take(texts, _tokens(texts))
        self._metrics.answered(job, method, time.monotonic() - job.arrived, [each.exit for each in scores])
        return job, scores

    async def _check(self, body: TextsRequest, texts: Sequence[TextInput]) -> None:
        """Refuse requests of no texts, of too many, texts that no tokenizer takes, and to cut them as asked for."""
        if not texts:
            raise RefusedError("Empty", "inputs must not be empty")
        if len(texts) > (most := self._settings.max_client_batch_size):
            raise RefusedError("Validation", f"a request may have at most {most} texts (got {len(texts)})", 413)
        _check_unicode(texts)
        side = body.truncation_direction
        if side is not None and (own := self._served.truncation_sides - {side.lower()}):
            words = f"truncation_direction must be {own.pop()}, the side that the tokenizer cuts texts at (got {side})"
            raise RefusedError("Validation", words)
        if body.truncate is False and (cut := await asyncio.to_thread(self._served.first_cut, texts)):
            words = f"texts must have at most {cut.tokens} tokens with truncate=false (got more at place {cut.place})"
            raise RefusedError("Validation", words, 413)

    async def _take(self, inputs: Sequence[Any], tokens: int) -> tuple[Job, Sequence[Any]]:
        try:
            return await self._batcher.run(inputs, tokens)
        except Exception as error:
            raise as_refusal(error) from error

    def _all_labels(self, scores: Scores, *, raw: bool) -> list[dict[str, Any]]:
        """Return all labels with their scores, the highest first."""
        values = raw_scores(scores) if raw and not self._numbers else scores.values
        _check_finite(values)
        order = sorted(range(len(values)), key=lambda place: -values[place])
        return [{"score": values[place], "label": self._labels[place]} for place in order]

    def _answer(self, body: Any, job: Job, step: int | None = None) -> Response:
        """Return an answer; headers say how long it took, and which step of the policy gave it, if one did."""
        headers = {
            "x-compute-type": "cpu",
            "x-total-time": _milliseconds(time.monotonic() - job.arrived),
            "x-queue-time": _milliseconds(job.waited),
            "x-inference-time": _milliseconds(job.computed),
        }
        if step is not None and not self._served.shadowed:
            headers["x-policy-step"] = str(step)
        return json_response(body, headers=headers)


def _text_or_pair(given: Any) -> TextInput:
    if isinstance(given, str):
        return given
    return given[0] if len(given) == 1 else (given[0], given[1])


def _check_unicode(texts: Sequence[TextInput]) -> None:
    for text in texts:
        if (found := lone_surrogate(text)) is not None:
            raise RefusedError("Validation", f"texts must be valid Unicode (got a {found})")


def _check_finite(values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise RefusedError("Backend", "the model gave an answer that is not a number")


def _tokens(texts: Sequence[TextInput]) -> int:
    return sum(3 + sum(map(len, [text] if isinstance(text, str) else text)) // _CHARACTERS for text in texts)


def _sigmoid(logit: float) -> float:
    power = math.exp(-abs(logit))
    return (1 if logit >= 0 else power) / (1 + power)


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}"
