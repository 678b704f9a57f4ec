"""Models that do something else than their class and configuration say, each a way to alter a small BERT."""

from __future__ import annotations

import torch
from transformers import BertForSequenceClassification as Bert
from transformers.modeling_outputs import SequenceClassifierOutput


def layer(model):
    return model.bert.encoder.layer[0]


def zeros(_module, _inputs, output):
    return torch.zeros_like(output) if isinstance(output, torch.Tensor) else (torch.zeros_like(output[0]), *output[1:])


def plus_one(_module, _inputs, output):
    return output + torch.tensor([0.0, 1.0])


def doubled(_module, _inputs, output):
    return SequenceClassifierOutput(logits=2 * output.logits)


def negated(model):
    def forward(**inputs):
        return SequenceClassifierOutput(logits=-Bert.forward(model, **inputs).logits)

    return forward


def set_many(module, **attributes):
    for name, value in attributes.items():
        setattr(module, name, value)


def sequential_head(inputs):
    return torch.nn.Sequential(torch.nn.Linear(inputs, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


#: Hidden size of the models that these ways fit.
HIDDEN = 32
#: What is altered -> how, and the backend that `auto` must choose then.
ALTERED = {
    "the pooler's activation": (lambda m: set_many(m.bert.pooler, activation=torch.nn.ReLU()), "reference"),
    "an activation": (lambda m: set_many(layer(m).intermediate, intermediate_act_fn=torch.nn.ReLU()), "reference"),
    "the pooler's forward": (lambda m: set_many(m.bert.pooler, forward=lambda h: h[:, 0].relu()), "reference"),
    "the model's forward": (lambda m: set_many(m, forward=negated(m)), "whole"),
    "a layer's forward": (lambda m: set_many(layer(m), forward=lambda h, *_, **__: h * 0.5), "whole"),
    "a layer's chunk": (lambda m: set_many(layer(m), feed_forward_chunk=lambda h: h * 0.5), "whole"),
    "the attention's forward": (
        lambda m: set_many(layer(m).attention, forward=lambda h, *_, **__: (h * 0.5, None)),
        "whole",
    ),
    "a dropout": (lambda m: set_many(m, dropout=torch.nn.LayerNorm(HIDDEN)), "reference"),
    "an epsilon": (lambda m: set_many(layer(m).output.LayerNorm, eps=0.5), "reference"),
    "the heads": (
        lambda m: set_many(layer(m).attention.self, num_attention_heads=4, attention_head_size=8),
        "reference",
    ),
    "a product's forward": (
        lambda m: set_many(layer(m).output.dense, forward=lambda h: torch.zeros(*h.shape[:-1], HIDDEN)),
        "reference",
    ),
    "a hook on what ends a layer": (lambda m: layer(m).output.register_forward_hook(zeros), "reference"),
    "a hook on a layer": (lambda m: layer(m).register_forward_hook(zeros), "whole"),
    "a hook before a product": (
        lambda m: layer(m).intermediate.dense.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 0,)),
        "reference",
    ),
    "a hook on the classifier": (lambda m: m.classifier.register_forward_hook(plus_one), "reference"),
    "a hook on the encoder": (lambda m: m.bert.encoder.register_forward_hook(lambda *_: None), "whole"),
    "a hook on the model": (lambda m: m.register_forward_hook(doubled), "whole"),
    "a head of two layers": (lambda m: set_many(m, classifier=sequential_head(HIDDEN)), "reference"),
    "a head without bias": (lambda m: set_many(m, classifier=torch.nn.Linear(HIDDEN, 2, bias=False)), "packed"),
    "a product without bias": (lambda m: set_many(layer(m).output.dense, bias=None), "packed"),
    "positions": (lambda m: set_many(m.bert.embeddings, position_ids=m.bert.embeddings.position_ids.flip(1)), "whole"),
    "types where none are given": (lambda m: m.bert.embeddings.token_type_ids.fill_(1), "whole"),
    "a weight that is computed": (
        lambda m: torch.nn.utils.parametrizations.weight_norm(layer(m).output.dense),
        "reference",
    ),
    "a table that renormalises": (lambda m: set_many(m.bert.embeddings.word_embeddings, max_norm=0.5), "reference"),
    "fewer layers": (lambda m: set_many(m.bert.encoder, layer=m.bert.encoder.layer[:1]), "packed"),
    "a dropout that is none": (lambda m: set_many(m, dropout=torch.nn.Identity()), "packed"),
    "another chance of dropout": (lambda m: set_many(m.dropout, p=0.7), "packed"),
    "an attribute of the caller's": (lambda m: set_many(m, note="mine"), "packed"),
}


def other_state(model):
    generator = torch.Generator().manual_seed(7)
    return {
        name: tensor + torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }


def train_a_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with torch.enable_grad():
        model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([1])).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def linear():
    torch.manual_seed(7)
    return torch.nn.Linear(HIDDEN, 2)


#: Weights that are changed -> how.
REWEIGHTED = {
    "loaded": lambda m: m.load_state_dict(other_state(m)),
    "loaded in the place of the old": lambda m: m.load_state_dict(other_state(m), assign=True),
    "a part is loaded": lambda m: m.bert.load_state_dict(other_state(m.bert)),
    "trained": train_a_step,
    "another classifier": lambda m: set_many(m, classifier=linear()),
    "another classifier's weight": lambda m: set_many(m.classifier, weight=torch.nn.Parameter(linear().weight)),
    "another classifier's bias": lambda m: set_many(m.classifier, bias=torch.nn.Parameter(torch.ones(2))),
    "other embeddings": lambda m: m.set_input_embeddings(torch.nn.Embedding(100, HIDDEN)),
    "a product of one number": lambda m: torch.nn.init.constant_(layer(m).output.dense.weight, 0.1),
}
