"""The texts of `moco-rt demo`: made on the spot, so that the demo needs no network."""

import math
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

NEGATIVE, POSITIVE = 0, 1
MIN_WORDS, MAX_WORDS = 8, 200

Kind: TypeAlias = Literal["easy", "negation", "contrast", "ambiguous"]
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
    voiced = 1 - polarity if negated else polarity
    sentences = []
    for _ in range(count):
        adjective, noun, verb = (rng.choice(words[voiced].split()) for words in (ADJECTIVES, NOUNS, VERBS))
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
