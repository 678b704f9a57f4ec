"""What somebody gains who writes texts against the exits: `python bench/bench_adversary.py`, about 15 minutes.

The attacker wants texts that minilm-sst2 calls NEGATIVE to come out POSITIVE, and may add words to them. The words are
chosen with all knowledge of the policy: those whose addition lets most texts leave early as POSITIVE that the full
model still calls NEGATIVE. Counted, on other texts, are those that the given model takes for POSITIVE once the words
are added (it is fooled itself) and those where only the exits are fooled, with exits everywhere and with
`never_early=["POSITIVE"]`. The other attack is on time: texts of which none leaves, and what they cost over a model
without exits. Needs `../shared`; prints the table of docs/security.md.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import torch
from bench_policies import SENTENCES, in_turns, texts
from common import BATCH_ROWS, SHARED, read_jsonl

import moco_rt
from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import cpu_isa
from moco_rt.architectures import load_classifier
from moco_rt.inputs.batching import length_sorted_batches

MODEL, LIMIT, TARGET = "minilm-sst2", 64, "POSITIVE"
#: How often a word is added while words are chosen, and how many words and texts are looked at.
COPIES, WORDS, CHOOSING = 3, 300, 80


def stuffed(rows: list[str], words: list[str], front: bool) -> list[str]:
    """Texts with words added, in front or behind."""
    added = " ".join(words)
    return [f"{added} {row}" if front else f"{row} {added}" for row in rows]


class Attack:
    """Counts texts that are fooled.

    Args:
        fast: with exits.
        full: the model as it was given.
    """

    def __init__(self, fast: EarlyExitTextClassificationModel, full: EarlyExitTextClassificationModel):
        self.fast, self.full = fast, full
        self.target = full.config.label2id[TARGET]

    def counts(self, rows: list[str]) -> tuple[float, float]:
        """Shares of texts where the given model says the target, and where only the exits do."""
        given = self.full.predict(rows, max_length=LIMIT).labels
        found = self.fast.predict(rows, max_length=LIMIT).labels
        target = torch.full_like(given, self.target)
        return float((given == target).float().mean()), float(((found == target) & (given != target)).float().mean())

    def best_words(self, candidates: list[str], rows: list[str], count: int) -> list[str]:
        """Words whose addition fools the exits alone most often."""
        gains = {
            word: max(self.counts(stuffed(rows, [word] * COPIES, front))[1] for front in (False, True))
            for word in candidates
        }
        return sorted(gains, key=lambda word: -gains[word])[:count]

    def words_that_leave(self, words: list[str]) -> list[str]:
        """Words by which a text of their own leaves early with the target, the surest first."""
        found = self.fast.predict([" ".join([word] * COPIES) for word in words], max_length=LIMIT)
        leaves = (found.exit_site >= 0) & (found.labels == self.target)
        order = np.argsort(-found.probs[:, self.target].numpy(), kind="stable")
        return [words[place] for place in order if leaves[place]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agreement", type=float, default=0.97)
    parser.add_argument("--find-rows", type=int, default=16_000)
    parser.add_argument("--words", type=int, default=WORDS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_classifier(str(SHARED / "models" / MODEL))
    unlabelled = texts(SENTENCES, options.find_rows)
    wanted = {"tokenizer": tokenizer, "agreement": options.agreement, "max_length": LIMIT, "dtype": "float32"}
    everywhere = moco_rt.accelerate(model, unlabelled, **wanted)
    held = moco_rt.accelerate(model, unlabelled, **wanted, never_early=[TARGET])
    full = EarlyExitTextClassificationModel(model)
    full.tokenizer = tokenizer
    attack, defended = Attack(everywhere, full), Attack(held, full)

    rows = [row["text"] for row in read_jsonl(SHARED / "data" / "sst2/test.jsonl", None)]
    labels = full.predict(rows, max_length=LIMIT).labels.tolist()
    negative = [row for row, label in zip(rows, labels, strict=True) if label != attack.target]
    choosing, victims = negative[:CHOOSING], negative[CHOOSING:]
    counted = Counter(word for text in unlabelled for word in set(text.split()) if word.isalpha())
    known = [word for word, seen in counted.most_common() if seen >= 5]
    candidates = attack.words_that_leave(known)[: options.words]
    print(f"{cpu_isa()}, {options.threads} threads; policy at {options.agreement:.0%}")
    print(f"{len(candidates)} of {len(known)} words leave by themselves as {TARGET}; {len(victims)} texts are attacked")
    words = attack.best_words(candidates, choosing, 10)
    print("words:", ", ".join(words))
    print("| words added | the given model is fooled | only the exits are | only the exits, never_early |")
    print("|---|---:|---:|---:|")
    for count in (0, 1, 3, 10):
        tried = [stuffed(victims, words[:count], front) for front in (False, True)]
        fooled, exits, rows_of_it = max(((*attack.counts(some), some) for some in tried), key=lambda each: each[1])
        print(f"| {count} | {fooled:.1%} | {exits:.2%} | {defended.counts(rows_of_it)[1]:.2%} |", flush=True)

    found = everywhere.predict(rows, max_length=LIMIT)
    slow = [row for row, site in zip(rows, found.exit_site.tolist(), strict=True) if site < 0]
    batches, _ = length_sorted_batches(tokenizer, slow, LIMIT, BATCH_ROWS)
    seconds = in_turns([full.forward, everywhere.forward], batches)
    ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
    print(f"{len(slow)} texts of which none leaves take {ratio:.3f} times as long as without exits")


if __name__ == "__main__":
    main()
