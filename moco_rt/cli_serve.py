"""The command `moco-rt serve`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from moco_rt.cli_options import DtypeOption, MaxLength

# What it runs on is imported inside: help and completion must not wait for it.

#: The variable that may hold the key.
_KEY = "MOCO_RT_API_KEY"


def serve(
    model: Annotated[str, typer.Argument(help="what accelerate wrote, or any classifier")],
    *,
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0: all of the machine's")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen at; 0: one that is free", min=0, max=65535)] = 8080,
    max_wait_ms: Annotated[float, typer.Option(help="milliseconds that a batch waits for others", min=0)] = 0.0,
    max_batch_tokens: Annotated[int, typer.Option(help="tokens of a batch, about", min=1)] = 16_384,
    max_concurrent_requests: Annotated[int, typer.Option(help="requests open at once; others get 429", min=1)] = 512,
    max_client_batch_size: Annotated[int, typer.Option(help="texts in a request", min=1)] = 32,
    payload_limit: Annotated[int, typer.Option(help="bytes of a request's body", min=1)] = 2_000_000,
    api_key: Annotated[
        str | None,
        typer.Option(help="key that callers must send as a bearer token", envvar=_KEY, show_default=False),
    ] = None,
    shadow: Annotated[
        Path | None,
        typer.Option(
            help="answer with the full model, and add to this file what the policy would have said",
            show_default=False,
        ),
    ] = None,
    monitor: Annotated[
        float | None,
        typer.Option(help="share of the rows that leave which the full model checks", show_default=False),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="folder where workers meet: the file step in it sets the policy's step for all", show_default=False
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="processes that share the port", min=1)] = 1,
    threads: Annotated[
        int | None,
        typer.Option(help="threads of each worker; all cores by default, shared out", min=1, show_default=False),
    ] = None,
    dtype: DtypeOption = None,
    max_length: MaxLength = None,
) -> None:
    """Answer over HTTP: /predict, /rerank, /info, /health, /metrics, as text-embeddings-inference has them."""
    try:
        from moco_rt.server.run import serve as run
        from moco_rt.server.settings import Settings
    except ModuleNotFoundError as error:
        raise ImportError(
            f"serve needs the extra serve: pip install 'moco-rt[serve]' (no module {error.name})"
        ) from None
    logging.getLogger("moco_rt").setLevel(logging.INFO)
    if threads is None and workers > 1:
        threads = max(1, len(os.sched_getaffinity(0)) // workers)
    if api_key is None:
        api_key = os.environ.get(_KEY)  # an empty one, which typer passes over, is refused
    settings = Settings(
        model=model,
        dtype=None if dtype is None else dtype.value,
        max_length=max_length,
        threads=threads,
        max_wait_ms=max_wait_ms,
        max_batch_tokens=max_batch_tokens,
        max_concurrent_requests=max_concurrent_requests,
        max_client_batch_size=max_client_batch_size,
        max_bytes=payload_limit,
        api_key=api_key,
        shadow=None if shadow is None else str(shadow),
        monitor=monitor,
        state=None if state is None else str(state),
    )
    run(settings, host=host, port=port, workers=workers)
    print("moco-rt: stopped", file=sys.stderr)
