"""The data and the model of `moco-rt demo`: made on the spot, so that the demo needs no network."""

import math
import random
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from tqdm import tqdm

# `architectures` reads other people's models; this file makes one, so it alone names their classes too.
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

NEGATIVE, POSITIVE = 0, 1
MIN_WORDS, MAX_WORDS = 8, 200
BATCH_SIZE = 16

Kind: TypeAlias = Literal["easy", "negation", "contrast", "ambiguous"]
Batch: TypeAlias = tuple[dict[str, Tensor], Tensor]  # a model's inputs, labels (B,)
KINDS: tuple[Kind, ...] = ("easy", "negation", "contrast", "ambiguous")
# Ambiguous reviews carry a coin flip for a label, so that no model reaches 100%.
AMBIGUOUS_SHARE = 0.02


class Review(NamedTuple):
    """One labelled text, and why its label holds."""

    text: str
    label: int  # NEGATIVE or POSITIVE
    kind: Kind  # "negation" and "contrast" are the hard ones: counting sentiment words does not settle them


# Film or product: what a review is about, and what it judges.
SUBJECTS = (
    ("the film", "the acting", "the plot", "the music", "the dialogue", "the camera work", "the ending"),
    ("this movie", "the lead", "the script", "the pacing", "the editing", "the second half", "the humour"),
    ("the blender", "the motor", "the lid", "the manual", "the price", "the finish", "the power cord"),
    ("this phone", "the screen", "the battery", "the camera", "the speaker", "the packaging", "the support"),
)
# Words in one string are separated by spaces. Indexed by polarity: NEGATIVE, POSITIVE.
ADJECTIVES = (
    "bad awful boring dull terrible weak clumsy horrible flat annoying disappointing useless messy bland",
    "good great wonderful charming superb strong lovely clever brilliant solid delightful useful vivid fresh",
)
NOUNS = ("waste mess failure bore disaster mistake", "joy triumph success treat gem delight")
VERBS = ("hated disliked regretted loathed", "loved enjoyed admired adored")
ADVERBS = "really very quite truly rather simply utterly so"

# Each says of its subject what its sentiment word says ...
PLAIN = (
    "{subject} was {adverb} {adjective}",
    "i found {subject} {adverb} {adjective}",
    "{subject} turned out to be {adjective}",
    "{subject} was a {noun}",
    "i {verb} {subject}",
)
# ... or the reverse.
NEGATED = ("{subject} was {negator} {adjective}", "{subject} was {negator} a {noun}")
NEGATORS = ("not", "hardly", "never", "far from", "anything but")
# Neutral; one uses "but" and "not", so that those words alone do not give a hard review away.
FILLERS = (
    "we sat down with it on a rainy {day} evening",
    "my brother had told me about it before",
    "we were late on {day} but that did not matter",
    "it is about as long as you would expect",
    "you can still get it in the shop around the corner",
)
DAYS = "monday tuesday wednesday thursday friday saturday sunday"
# What stands before such a turn counts no more.
TURNS = (", but overall", ", but in the end", ". however , all things considered", ", and yet , all in all")


def make_corpus(rows: int, seed: int, *, hard_share: float = 0.24, median_words: float = 55.0) -> list[Review]:
    """Makes labelled English reviews of 8 to 200 words, the same ones for the same seed.

    Args:
        rows: how many.
        seed: of every choice made.
        hard_share: how many of the reviews, as a fraction, need more than counting sentiment words.
        median_words: of the lengths, which have a long tail: the mean is about a quarter above.
    """
    rng = random.Random(seed)
    weights = (1.0 - hard_share - AMBIGUOUS_SHARE, hard_share / 2, hard_share / 2, AMBIGUOUS_SHARE)
    kinds = rng.choices(KINDS, weights=weights, k=rows)
    return [_make_review(rng, kind, median_words) for kind in kinds]


def _make_review(rng: random.Random, kind: Kind, median_words: float) -> Review:
    label = rng.choice((NEGATIVE, POSITIVE))
    subjects = rng.choice(SUBJECTS)
    words = min(max(round(rng.lognormvariate(mu=math.log(median_words), sigma=0.7)), MIN_WORDS), MAX_WORDS)
    # An opinion is about 5 words long, a filler 9: opinions make up a third to a half of the text.
    opinions = max(1, round(words / 12))
    minority = rng.randint(0, opinions // 6)
    majority, other, ending = label, 1 - label, ""
    if kind == "contrast":
        majority, other = other, majority
        ending = f"{rng.choice(TURNS)} {' and '.join(_opinions(rng, subjects, label, 2))}"
    elif kind == "negation":
        other = label  # all of one mind: the majority says so by negating, the minority plainly
    elif kind == "ambiguous":
        opinions, minority = 2, 1
    sentences = _opinions(rng, subjects, majority, opinions - minority, negated=kind == "negation")
    sentences += _opinions(rng, subjects, other, minority)
    rng.shuffle(sentences)
    return Review(_lengthen(rng, sentences, ending, words), label, kind)


def _opinions(
    rng: random.Random, subjects: Sequence[str], polarity: int, count: int, *, negated: bool = False
) -> list[str]:
    said = 1 - polarity if negated else polarity
    sentences = []
    for _ in range(count):
        adjective, noun, verb = (rng.choice(words[said].split()) for words in (ADJECTIVES, NOUNS, VERBS))
        others = {"adverb": rng.choice(ADVERBS.split()), "negator": rng.choice(NEGATORS)}
        form, subject = rng.choice(NEGATED if negated else PLAIN), rng.choice(subjects)
        sentences.append(form.format(subject=subject, adjective=adjective, noun=noun, verb=verb, **others))
    return sentences


def _lengthen(rng: random.Random, sentences: list[str], ending: str, words: int) -> str:
    """Strews fillers among the sentences until there are `words` words, never more than MAX_WORDS."""
    length = sum(len(sentence.split()) for sentence in [*sentences, ending])
    while length < words:
        filler = rng.choice(FILLERS).format(day=rng.choice(DAYS.split()))
        length += len(filler.split())
        if length > MAX_WORDS:
            break
        # Not after the last sentence: an ending goes on from there.
        sentences.insert(rng.randrange(len(sentences)), filler)
    return ". ".join(sentences) + ending + "."


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
    batches = _batches_by_length(tokenizer, texts, labels)
    random.Random(seed).shuffle(batches)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reseed the caller's GPUs too.
        torch.default_generator.manual_seed(seed)
        model = _small_bert(tokenizer)
        _give_head_start(model, batches)
        _fit(model, batches)
    return model.eval(), tokenizer


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
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=(0.9, 0.98))
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
