"""Random classifiers and a tokenizer of a few words, made in no time."""

from __future__ import annotations

import copy

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast


def tiny_bert(layers=2, hidden=32, heads=2, labels=2, seed=0, dtype=torch.float32, **config):
    """A classifier without a bias of 0 or a scale of 1: what is left out shows."""
    sizes = {"vocab_size": 100, "max_position_embeddings": 64, "intermediate_size": 4 * hidden}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForSequenceClassification(
            BertConfig(
                num_hidden_layers=layers,
                hidden_size=hidden,
                num_attention_heads=heads,
                num_labels=labels,
                # With Hugging Face's 0.02 every row would get nearly the same logits, hence one label.
                **{**sizes, "initializer_range": 0.4, **config},
            )
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.2)
                elif "LayerNorm" in name:
                    parameter.uniform_(0.5, 1.5)
    return model.to(dtype).eval()


def word_tokenizer():
    """A tokenizer of a few words, with BERT's template for one text and for pairs."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["a", "the", "film", "good", "bad", "not", "was", "but"]]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", padding_side="right"
    )


def cut_to(model, layers):
    """Return a copy of a BERT with its first layers alone."""
    shallow = copy.deepcopy(model)
    shallow.bert.encoder.layer = shallow.bert.encoder.layer[:layers]
    shallow.config.num_hidden_layers = layers
    return shallow
