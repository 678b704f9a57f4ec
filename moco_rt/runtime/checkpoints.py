"""The files beside a model's own: its policy, what a monitor has seen, and the report of the search."""

from __future__ import annotations

import copy
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from moco_rt.architectures import Source, find_file, find_source
from moco_rt.policies.findings import SearchReport
from moco_rt.policies.monitor import Monitor, read_state
from moco_rt.policies.policy import Policy
from moco_rt.policies.policy_files import JSON, TENSORS, load_policy, save_policy
from moco_rt.storage import replacing_folder

#: What a monitor has seen.
MONITOR = "monitor.json"
#: The report of the search, of which `moco-rt report` makes a page.
FINDINGS = "findings.safetensors"
#: The folder of the model as it was given, beside another form of it.
GIVEN = "given"
#: A directory that holds it is a cascade's.
CASCADE = "cascade.json"
#: Files that another model, or this one in another form, may have left.
_STALE = (
    *(JSON, TENSORS, MONITOR, FINDINGS, GIVEN),
    *(CASCADE, "cascade.safetensors", "tier-*"),
    *("ranking.json", "ranking.safetensors", "ranking-monitor.json"),
    *("model*.safetensors", "model.safetensors.index.json"),
)
#: Files of a tokenizer or an image processor, by any of transformers' names: beside others' they are read, too.
_PREPARATION = (
    *(
        "tokenizer.json",
        "tokenizer.[0-9]*.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
    *(
        "vocab.txt",
        "vocab.json",
        "vocab.bpe",
        "merges.txt",
        "bpe.codes",
        "tokenizer.model",
        "tiktoken.model",
        "prophetnet.tokenizer",
    ),
    *("spiece.model", "spm.model", "spm_char.model", "sentencepiece*.model"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates"),
    *("preprocessor_config.json", "processor_config.json"),
)


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a saved model beside its weights.

    Attributes:
        policy: its exits.
        monitor: what watches them; None: nothing does.
        search_report: of the search for the policy; None: there was none.
    """

    policy: Policy
    monitor: Monitor | None = None
    search_report: SearchReport | None = None


def replacing(directory: str | Path) -> AbstractContextManager[Path]:
    """A new folder whose files take the place of those of a model, or a cascade, see `replacing_folder`.

    All files of a tokenizer or an image processor that are there go where a new one is written: what an older one left
    would change its ids. Where none is written they stay, whosever they are: a model that carries none is saved beside
    the tokenizer that its owner has put there.

    Raises:
        ValueError: an adapter lies there, which transformers would put into the model when it is loaded.
    """
    if (adapter := Path(directory) / "adapter_config.json").exists():
        raise ValueError(f"{directory} must hold no adapter, which would be put into the model (got {adapter.name})")
    return replacing_folder(directory, _STALE, _PREPARATION)


def save(directory: Path, checkpoint: Checkpoint) -> None:
    """Write into a directory.

    Raises:
        ValueError: a rule is a plain callable, which has no form on disk.
    """
    # An alarm may come meanwhile. Counts first: those of a step that the policy has left by now begin anew when loaded.
    seen = None if checkpoint.monitor is None else checkpoint.monitor.state()
    policy = copy.copy(checkpoint.policy)
    save_policy(policy, directory)
    if seen is not None and policy.exits:  # it may have stepped back to where there are none
        (directory / MONITOR).write_text(json.dumps(seen) + "\n", encoding="utf-8")
    if checkpoint.search_report is not None:
        checkpoint.search_report.save(directory / FINDINGS)


def policy_source(source: str | Path | Source) -> Source:
    """Return where a policy is to be taken from.

    Args:
        source: a directory, a name on the hub, or what `find_source` returned for a model.

    Raises:
        OSError: there is no such directory, and no policy of that name on the hub.
    """
    return source if isinstance(source, Source) else find_source(Source(str(source)), JSON)


def has_policy(source: Source) -> bool:
    """Tell whether a policy lies in a directory, or beside a model on the hub."""
    return any(find_file(source, file) is not None for file in (JSON, TENSORS))


def load(source: Source, expected: Policy) -> Checkpoint:
    """Read what lies in a directory, or beside a model on the hub, where there is a policy.

    Raises:
        ValueError: the policy is of another model, see `load_policy`, or one of its two files is missing.
    """
    files = [find_file(source, file) for file in (JSON, TENSORS)]
    if files[0] is None or files[1] is None:
        raise ValueError(f"{source.name} must hold both {JSON} and {TENSORS} (one is missing)")
    policy = load_policy(files[0], files[1], expected)
    state, report = find_file(source, MONITOR), find_file(source, FINDINGS)
    monitor = None
    if state is not None:
        seen = read_state(state)
        monitor = Monitor(policy, seen["rate"], delta=seen["delta"])
        monitor.restore(seen)
    return Checkpoint(policy, monitor, None if report is None else SearchReport.load(report))
