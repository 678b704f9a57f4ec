"""Servers on real sockets of this machine."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

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


def metrics_of(client):
    """What `/metrics` says, by name and labels."""
    lines = client.get("/metrics").text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


class ServerProcess:
    """`moco-rt serve` as a process of its own.

    Attributes:
        process: the process.
        where: its address.
        said: what it wrote to standard error; known once it has stopped.
    """

    def __init__(self, folder, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "moco_rt", "serve", str(folder), "--port", str(self.port), *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.where = f"http://127.0.0.1:{self.port}"
        self.said = ""

    def __enter__(self):
        deadline = time.monotonic() + 120
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.where}/health", timeout=60, trust_env=False).status_code == 200:
                    return self
            time.sleep(0.2)
        raise AssertionError(self.process.communicate(timeout=60)[1])

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.said = self.process.communicate(timeout=60)[1]

    def facts(self):
        """Resident megabytes, open files and threads of the process."""
        return process_facts(self.process.pid)


def process_facts(pid):
    """Resident megabytes, open files and threads of a process."""
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    files, threads = (len([*(folder / name).iterdir()]) for name in ("fd", "task"))
    return {"MB": pages * 4096 / 1e6, "files": files, "threads": threads}
