"""Servers on real sockets of this machine."""

from __future__ import annotations

import contextlib
import threading
import time

import httpx
import uvicorn


@contextlib.contextmanager
def running(app):
    """An application on a real socket of this machine; gives a client."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            client.server = server
            yield client
    finally:
        server.should_exit = True
        thread.join()
