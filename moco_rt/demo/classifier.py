"""The classifier of `moco-rt demo`: a small BERT trained on the spot."""

import math
import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from tqdm import tqdm

# `architectures` reads other people's models; this file makes one, so it alone names their classes too.
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from moco_rt.demo.corpus import NEGATIVE, POSITIVE

BATCH_SIZE = 16

Batch: TypeAlias = tuple[dict[str, Tensor], Tensor]  # a model's inputs, labels (B,)


def train_classifier(
    texts: Sequence[str], labels: Sequence[int], seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Trains, in one pass on the CPU, a small BERT classifier (returned in evaluation mode) and its tokenizer.

    Args:
        texts: of any length; what passes 256 tokens is cut off.
        labels: NEGATIVE or POSITIVE, one per text.
        seed: of the weights and of the order of the batches; the caller's random state is left alone.

    Example:
        >>> reviews = make_corpus(14_000, seed=0, hard_share=0.33, median_words=28)
        >>> model, tokenizer = train_classifier([r.text for r in reviews], [r.label for r in reviews], seed=0)
    """
    tokenizer = _train_tokenizer(texts)
    with torch.device("cpu"):  # whatever the caller's default is
        return _train_on(tokenizer, texts, labels, seed), tokenizer


def _train_on(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], labels: Sequence[int], seed: int
) -> PreTrainedModel:
    batches = _batches_by_length(tokenizer, texts, labels)
    random.Random(seed).shuffle(batches)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reseed the caller's GPUs too.
        torch.default_generator.manual_seed(seed)
        model = _small_bert(tokenizer)
        _give_head_start(model, batches)
        _fit(model, batches)
    model.eval()
    return model


def _train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Whole words: the WordPiece trainer breaks ties differently from run to run.
    backend = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordLevelTrainer(special_tokens=specials, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{token[1:-1].lower()}_token": token for token in specials}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=256, padding_side="right", model_input_names=inputs, **names
    )


def _batches_by_length(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], labels: Sequence[int]) -> list[Batch]:
    """Texts of like length together, padded to the longest of their batch."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    batches = []
    for start in range(0, len(order), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        inputs = tokenizer([texts[row] for row in rows], padding=True, truncation=True, return_tensors="pt")
        batches.append((dict(inputs), torch.tensor([labels[row] for row in rows])))
    return batches


def _small_bert(tokenizer: PreTrainedTokenizerFast) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=tokenizer.model_max_length,
        initializer_range=0.06,
        # One pass over the texts is too little to learn them by heart.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label={NEGATIVE: "NEGATIVE", POSITIVE: "POSITIVE"},
        label2id={"NEGATIVE": NEGATIVE, "POSITIVE": POSITIVE},
    )
    return BertForSequenceClassification(config)


@torch.no_grad()
def _give_head_start(model: BertForSequenceClassification, batches: list[Batch]) -> None:
    """Starts the weights where a minute suffices: from plain noise it goes by before "not good" is learnt."""
    embeddings = model.bert.embeddings
    words, positions = embeddings.word_embeddings.weight, embeddings.position_embeddings.weight
    vocab_size, hidden_size = words.shape
    # Each word leans to the label it is seen with: its log-odds along one direction.
    counts = torch.full((2, vocab_size), 5.0)
    for inputs, labels in batches:
        for label in (NEGATIVE, POSITIVE):
            counts[label] += torch.bincount(inputs["input_ids"][labels == label].flatten(), minlength=vocab_size)
    lean = (counts[POSITIVE] / counts[NEGATIVE]).log().clamp(-1.0, 1.0)
    words += 0.8 * lean[:, None] * torch.nn.functional.normalize(torch.randn(hidden_size), dim=0)
    # Sinusoids, and keys equal to queries in one head of the lower layers: that head sees near words first,
    # as "not" before "good". Upper layers and the other head begin with the whole text.
    frequencies = torch.exp(torch.arange(0, hidden_size, 2) * (-math.log(10_000.0) / hidden_size))
    angles = torch.arange(len(positions))[:, None] * frequencies
    positions.copy_(0.12 * torch.cat([angles.sin(), angles.cos()], dim=1))
    for layer in model.bert.encoder.layer[:2]:
        attention: Any = layer.get_submodule("attention.self")
        head = slice(attention.attention_head_size)
        attention.key.weight[head] = attention.query.weight[head]


def _fit(model: BertForSequenceClassification, batches: list[Batch], peak_lr: float = 4e-4) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_lr, len(batches), pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )
    model.train()
    for inputs, labels in tqdm(batches, desc="training", unit="batch"):
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
