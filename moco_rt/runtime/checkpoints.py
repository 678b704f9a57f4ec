"""What lies beside a model's own files: its policy, what a monitor has seen, and what a report shows."""

from __future__ import annotations

import json
from pathlib import Path

from moco_rt.architectures import find_file
from moco_rt.policies.findings import SearchReport
from moco_rt.policies.monitor import Monitor
from moco_rt.policies.policy import Policy
from moco_rt.policies.policy_files import JSON, TENSORS, load_policy, save_policy

_MONITOR = "monitor.json"
#: What only `moco-rt report` reads.
FINDINGS = "findings.safetensors"
#: A directory that holds it is a cascade's.
CASCADE = "cascade.json"


def save(directory: str | Path, policy: Policy, monitor: Monitor | None, findings: SearchReport | None) -> None:
    """Write what there is of them into a directory, which is made where it is missing.

    Raises:
        ValueError: a rule is a plain callable, which has no form on disk.
    """
    save_policy(policy, directory)
    for name in (_MONITOR, FINDINGS, CASCADE):  # of what was there before
        (Path(directory) / name).unlink(missing_ok=True)
    if monitor is not None:
        (Path(directory) / _MONITOR).write_text(json.dumps(monitor.state()) + "\n", encoding="utf-8")
    if findings is not None:
        findings.save(Path(directory) / FINDINGS)


def load(name: str | Path, expected: Policy) -> tuple[Policy, Monitor | None] | None:
    """Policy and monitor from a directory, or by a model's name on the hub; None: there is no policy.

    Raises:
        ValueError: the policy is of another model, see `load_policy`, or one of its two files is missing.
    """
    files = [find_file(name, file) for file in (JSON, TENSORS)]
    if files == [None, None]:
        return None
    if files[0] is None or files[1] is None:
        raise ValueError(f"{name} must hold both {JSON} and {TENSORS} (one is missing)")
    policy = load_policy(files[0], files[1], expected)
    state = find_file(name, _MONITOR)
    if state is None:
        return policy, None
    seen = json.loads(state.read_text(encoding="utf-8"))
    monitor = Monitor(policy, seen["rate"])
    monitor.restore(seen)
    return policy, monitor
