"""The server as a process, or several: it loads, listens, and answers what it accepted before it stops."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import torch
import uvicorn
from uvicorn.supervisors import Multiprocess

from moco_rt.server.answering import Served
from moco_rt.server.app import make_app
from moco_rt.server.limits import Limits
from moco_rt.server.listening import BACKLOG, address_of, bound_sockets, listen
from moco_rt.server.settings import Settings
from moco_rt.server.shared_state import SharedState
from moco_rt.serving.loading import load_answering

_log = logging.getLogger(__name__)

#: How settings reach the workers.
_VARIABLE = "MOCO_RT_SERVER_SETTINGS"
#: Seconds that answers may take which are still owed when the server is told to stop.
_FAREWELL = 60
#: Seconds that a worker may be too busy to say that it is alive, as it is while it imports and loads.
_LOADING = 120
_RUNNING = "running on %s"


def serve(settings: Settings, *, host: str, port: int, workers: int = 1) -> None:
    """Answer requests until the process is told to stop (SIGINT or SIGTERM).

    Args:
        settings: see `Settings`.
        host: the address to listen at.
        port: 0: one that is free; the log says which.
        workers: processes that share the port and, where settings name one, a folder of state, and nothing else.

    Raises:
        OSError: there is no such model, or no such address, or somebody else listens there.
        ValueError: the model refuses what is asked of it.
    """
    options: dict[str, Any] = {
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # nothing here asks who calls, or by which scheme
        "timeout_graceful_shutdown": _FAREWELL,
        "backlog": BACKLOG,
    }
    with bound_sockets(host, port) as sockets:
        served, state = _load(settings)  # of several workers: what is refused is said once, and not by each
        if state is not None:
            state.exchange()
        address = address_of(host, sockets[0])
        if workers == 1:
            served.warm_up()
            app = make_app(served, settings, state)
            _spare_what_stays()
            listen(sockets)  # not every event loop tells that it cannot
            _run_alone(_Server(uvicorn.Config(app, **options), address), sockets)
            return
        served.close()
        del served
        listen(sockets)  # where another server has taken the port meanwhile, workers would try for ever
        options |= {"workers": workers, "timeout_worker_healthcheck": _LOADING}
        # From here on it takes signals, and stops in good order when it runs.
        supervisor = Multiprocess(uvicorn.Config("moco_rt.server.run:worker", factory=True, **options), sockets)
        with tempfile.TemporaryDirectory(prefix="moco_rt-metrics-") as counts:
            os.environ[_VARIABLE] = settings.to_json()
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = counts
            _log.info(_RUNNING, address)
            supervisor.run()


class _Server(uvicorn.Server):
    """A server on sockets of its own, which says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, address: str):
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, unless it is to stop already."""
        if not self.should_exit:
            await super().startup(sockets)
            _log.info(_RUNNING, self._address)


def _run_alone(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
    """Run a server in this process until a signal comes, which does not end the process but by ending the server."""

    def stop(*_: object) -> None:  # an error raised in here would be lost where a finalizer runs
        server.should_exit = True

    # It takes signals only while it runs, and when it has stopped raises the one that it took again.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run(sockets)


def worker() -> Limits:
    """Return the application of one worker of several, by the settings that its parent left in the environment."""
    logging.basicConfig(format="moco-rt: %(message)s")
    logging.getLogger("moco_rt").setLevel(logging.INFO)
    app = make_worker_app(Settings.from_json(os.environ[_VARIABLE]))
    _spare_what_stays()
    return app


def make_worker_app(settings: Settings) -> Limits:
    """Load a model, and return the application that answers for it.

    Raises:
        OSError: there is no such model, or a file or folder cannot be written.
        ValueError: the model refuses what is asked of it.
    """
    served, state = _load(settings)
    served.warm_up()
    return make_app(served, settings, state)


def _spare_what_stays() -> None:
    """Keep the garbage collector from what was imported and loaded, which a full collection takes 0.2 s to look at."""
    gc.collect()
    gc.freeze()


def _load(settings: Settings) -> tuple[Served, SharedState | None]:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    model = load_answering(settings.model, settings.dtype)  # type: ignore[arg-type]  # the name is checked there
    if settings.monitor is not None:
        model.monitor(settings.monitor)
    state = None if settings.state is None else SharedState(Path(settings.state), model)
    return Served(model, settings.max_length, None if settings.shadow is None else Path(settings.shadow)), state
