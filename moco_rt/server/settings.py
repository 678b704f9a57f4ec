"""Settings of a server: all that its command line says, in a form that goes from a process to its workers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

#: Milliseconds that a batch waits for others, at most: who asks has given up by then.
_LONGEST_WAIT = 60_000.0


@dataclass(frozen=True)
class Settings:
    """The settings of a server.

    Attributes:
        model: what `accelerate` wrote, or any classifier, or its name on the hub.
        dtype: that a model computes in; None: its own.
        max_length: in tokens; None: what policy, model and tokenizer allow.
        threads: of each worker; None: as many as there are cores, or their share of several workers.
        max_wait_ms: milliseconds that a batch waits for others, up to a minute.
        max_batch_tokens: about how many tokens a batch has.
        max_concurrent_requests: open at once in a worker; those beyond are refused.
        max_client_batch_size: texts in a request.
        max_bytes: of a request's body.
        api_key: that requests must name; None: none.
        shadow: the file in which a policy's answers are recorded, while the full model gives them; None: it does not.
        monitor: the share of the rows that leave which the full model checks; None: what the model's directory says.
        state: the folder where workers meet, see `SharedState`; None: there is none.

    Raises:
        ValueError: max_wait_ms is negative, more than a minute, or no number; or api_key is empty.
    """

    model: str
    dtype: str | None = None
    max_length: int | None = None
    threads: int | None = None
    max_wait_ms: float = 0.0
    max_batch_tokens: int = 16_384
    max_concurrent_requests: int = 512
    max_client_batch_size: int = 32
    max_bytes: int = 2_000_000
    api_key: str | None = None
    shadow: str | None = None
    monitor: float | None = None
    state: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_wait_ms <= _LONGEST_WAIT:
            raise ValueError(f"max_wait_ms must be from 0 to {_LONGEST_WAIT:,.0f} (got {self.max_wait_ms})")
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError(f"api_key must not be empty (got {self.api_key!r})")

    def to_json(self) -> str:
        """Return them as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what `to_json` returned."""
        return cls(**json.loads(text))
