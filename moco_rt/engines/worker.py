"""Objects in processes of their own: thread pools of different engines would spin against each other in one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

#: Seconds after which an engine that says nothing is given up.
PATIENCE = 1800


class WorkerFailedError(RuntimeError):
    """A worker failed; the message says in one line why."""


class Worker:
    """Makes an object in a fresh process; its methods are called by name, one at a time.

    The first answer, which nobody asks for, says that the object is made. With the interpreter of another environment
    the process has other libraries; moco_rt is there, too.

    Raises:
        WorkerFailedError: there is no such interpreter.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, python: str = sys.executable):
        self._connection, theirs = Pipe()
        with theirs:
            handle = theirs.fileno()
            serve = f"from moco_rt.engines.worker import serve; serve({handle})"
            try:
                self._process = subprocess.Popen([python, "-c", serve], pass_fds=[handle])
            except OSError as error:
                raise WorkerFailedError(f"{python} cannot be started: {error.strerror}") from error
        with contextlib.suppress(OSError):  # of a process that has died; its answer says how
            self._connection.send((make, arguments))

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method and wait for what it returns."""
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            raise WorkerFailedError(self._how_it_ended()) from error
        return self.answer()

    def answer(self) -> Any:
        """Wait for what was asked last.

        Raises:
            WorkerFailedError: the object raised, its process died or says nothing.
        """
        if not self._connection.poll(PATIENCE):
            raise WorkerFailedError(f"no answer within {PATIENCE} s")
        try:
            failure, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerFailedError(self._how_it_ended()) from error
        if failure is not None:
            raise WorkerFailedError(failure)
        return value

    def close(self) -> None:
        """End the process, by force where it does not hear that nobody asks any more."""
        self._connection.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        return f"its process ended with exit code {self._process.returncode}"


class Crew:
    """Workers by name, made at the same time. One that fails leaves the crew, and `failed` says why; others go on."""

    def __init__(self, makers: Mapping[str, tuple[Any, ...]], pythons: Mapping[str, str] | None = None):
        self.failed: dict[str, str] = {}
        pythons = dict.fromkeys(makers, sys.executable) | dict(pythons or {})
        self._workers: dict[str, Worker] = {}
        for name, maker in makers.items():
            try:
                self._workers[name] = Worker(*maker, python=pythons[name])
            except WorkerFailedError as error:
                self.failed[name] = str(error)
        for name in self.names():
            self._excuse(name, self._workers[name].answer)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def names(self) -> list[str]:
        """Return the names of those still at work."""
        return list(self._workers)

    def ask(self, name: str, method: str, *arguments: Any) -> Any:
        """Return what the method returns; None from a worker that failed, now or before."""
        return self._excuse(name, self._workers[name].ask, method, *arguments) if name in self._workers else None

    def _excuse(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except WorkerFailedError as error:
            self.failed[name] = str(error)
            self._workers.pop(name).close()


def serve(handle: int) -> None:
    """Make an object as a connection says, then answer its calls with (failure in one line or None, value).

    Ends when the other side is gone.
    """
    connection = Connection(handle)
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # progress bars and warnings
        os.dup2(null, stream)
    try:
        make, arguments = connection.recv()
        served = make(*arguments)
        connection.send((None, None))
        while True:
            method, arguments = connection.recv()
            connection.send((None, getattr(served, method)(*arguments)))
    except EOFError:
        return
    except Exception as error:
        connection.send((_one_line(error), None))


def _one_line(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
