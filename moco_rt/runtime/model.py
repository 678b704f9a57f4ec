"""EarlyExitTextClassificationModel: a Hugging Face classifier whose settled rows leave early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import Source, find_tokenizer
from moco_rt.architectures.pipelines import announce_to_pipelines, not_traced
from moco_rt.certification.these_rows import RowsWish
from moco_rt.encoding import Encoded, EncodedTexts
from moco_rt.inputs.batching import row_lengths
from moco_rt.inputs.texts import TextInput, Texts, list_texts
from moco_rt.inputs.tokenizer_identity import save_tokenizer
from moco_rt.runtime.checks import ModelInputs, check_inputs, check_no_labels
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.classifiers.certified import predict_certified
from moco_rt.runtime.classifiers.comparison import comparison_of
from moco_rt.runtime.exit_points import ExitPoint
from moco_rt.runtime.outputs import Answer, EarlyExitOutput, Prediction
from moco_rt.runtime.prediction import join_parts, predict_parts

announce_to_pipelines("moco_rt", "EarlyExitTextClassificationModel")


class EarlyExitTextClassificationModel(EarlyExitClassifier):
    """A fine-tuned classifier with exits. Without rules it answers exactly as the model it was made from.

    Args:
        model: a Hugging Face `...ForSequenceClassification`; it is put in evaluation mode.
        backend: `packed` runs on the extension's own kernels, on a CPU: in float32 and bfloat16 from a packed copy of
            the weights, in int8 from the model's own; `reference` drives the model's own modules; `whole` calls the
            model's own forward, without exits, whatever its family; `auto` takes the first of them that computes what
            the model computes, and says in the log why where that is not `packed`. It is chosen anew at the next call
            where weights, modules or settings were loaded, trained or replaced since. Attributes of modules, and what
            is written through `weight.data` or into biases alone, are not looked at again.
        dtype: computes in this dtype, on a converted copy where the model has another; `"int8"`: see `int8_copy`;
            None: as it is, but for float16 on a CPU and weights of several dtypes, which are computed in float32.
            A rule's bound speaks of the dtype it was found in: capture from `.model` to find rules.

    Attributes:
        tokenizer: the model's, for `predict` and `save_pretrained`; `accelerate` and `from_pretrained` set it.

    Raises:
        TypeError: model is not a sequence classifier, or dtype is no dtype.
        ValueError: the backend that was asked for does not cover the model, or is unknown; its classes are not named
            from 0 on.

    Example:
        >>> model = EarlyExitTextClassificationModel(hf_model)
        >>> model(**tokenizer("This is a test", return_tensors="pt")).logits
    """

    #: `transformers.pipeline` says it when it is printed.
    input_modalities = "text"

    tokenizer: Any = None

    @not_traced
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: None = None,
    ) -> EarlyExitOutput:
        """Classify a padded batch.

        Args:
            input_ids: (B, S) int64 or int32.
            attention_mask: (B, S), integer or bool, 1 on real tokens, padded on the right, or of decoders and models
                that run whole on either side; None: all are real.
            token_type_ids: (B, S), segments of text pairs; None: all 0.
            labels: None; the model answers, and is not trained.

        Raises:
            TypeError: no tensor, or wrong dtype.
            ValueError: there are labels, wrong shape or device, no row, a row without a real token, a mask that is not
                0 and 1 or padded in another way.
            IndexError: a token or its type that the model does not have.
        """
        check_no_labels(labels)
        check_inputs(input_ids, attention_mask, token_type_ids, self.max_seqlen, self.device)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs = ModelInputs(input_ids, attention_mask, token_type_ids)
        return self._answer(lambda exits: self.run(exits, *inputs), lambda rows: self.given.run({}, *inputs.take(rows)))

    def forward_packed(self, rows: EncodedTexts) -> EarlyExitOutput:
        """Classify texts as `encode` returns them, each with at least one token, as `forward` does padded ones."""
        return self._answer(
            lambda exits: self.run_packed(exits, rows),
            lambda places: self.given.run_packed({}, rows.take(places.cpu().numpy())),
        )

    def predict(
        self,
        texts: Texts,
        *,
        tokenizer: Any = None,
        max_length: int | None = None,
        columns: str | Sequence[str] | None = None,
        certify: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Prediction:
        """Label texts: tokenised in the background while others are computed, a progress bar for long work.

        Args:
            texts: N texts, pairs, or rows with named columns, in whatever holds them, see `list_texts`. What has a
                length is checked before anything is computed.
            tokenizer: the model's, from Hugging Face; None: the one that it carries.
            max_length: texts are truncated to so many tokens; None: to what policy, model and tokenizer allow.
            columns: names the column of the text, or the two of a pair; None: `text`, with `text2` or `text_pair`.
            certify: the share of these very texts, inside (0, 1), whose answers are to be those of the model as it was
                given, whatever the texts are. Some are drawn at random and also run by that model, whose answers they
                keep; they say with which policy of the certified path the others are run. The `certificate` of the
                prediction says what holds. None: nothing is promised of these texts.
            confidence: with which that must hold, over the draw; with `certify` alone.
            seed: of the draw.

        Raises:
            TypeError: texts is a single text, or holds something else.
            ValueError: there are none, one is not valid Unicode, max_length leaves no room for a text, there is no
                tokenizer, or not the policy's, or a share is not inside (0, 1).
            Exception: whatever reading the texts raises. What was finished before an error is its `prediction`.
        """
        if certify is None:
            return join_parts(predict_parts(self, texts, tokenizer, max_length, columns))
        wish = RowsWish(certify, confidence, seed)
        listed = list_texts(texts, columns)

        def label(texts: Iterator[TextInput], answer: Answer) -> Iterator[Prediction]:
            return predict_parts(self, texts, tokenizer, max_length, answer=answer)

        return predict_certified(comparison_of(self, wish), len(listed), lambda: listed, label, wish)

    def lengths_of(self, rows: Sequence[Encoded]) -> NDArray[np.int64]:
        """Return how many tokens each of N tokenised texts has: (N,) int64."""
        return row_lengths(rows)

    def batch_of(self, rows: Sequence[Encoded]) -> EncodedTexts:
        """Return tokenised texts end to end."""
        return EncodedTexts.of(rows)

    def run_batch(self, exits: Mapping[str, ExitPoint], batch: EncodedTexts) -> Results:
        """Classify tokenised texts, with these exits by site."""
        return self.run_packed(exits, batch)

    def _save_preparation(self, directory: Path) -> None:
        if self.tokenizer is not None:
            save_tokenizer(self.tokenizer, directory)

    def _find_preparation(self, source: Source) -> None:
        self.tokenizer = find_tokenizer(source)
