"""Objects in processes of their own: thread pools of different engines would spin against each other in one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

#: Seconds after which an engine that says nothing is given up.
PATIENCE = 1800


class WorkerFailedError(Exception):
    """A worker failed; the message says in one line why."""


class Worker:
    """Makes an object in a fresh process; its methods are called by name, one at a time.

    The first answer, which nobody asks for, says that the object is made.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

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
        self._process.join(timeout=5)
        self._process.kill()
        self._process.join()

    def _how_it_ended(self) -> str:
        self._process.join(timeout=10)
        return f"its process ended with exit code {self._process.exitcode}"


class Crew:
    """Workers by name, made at the same time. One that fails leaves the crew, and `failed` says why; the others go on."""

    def __init__(self, makers: Mapping[str, tuple[Any, ...]]):
        self.failed: dict[str, str] = {}
        self._workers = {name: Worker(*maker) for name, maker in makers.items()}
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


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Answer (failure in one line or None, value) to everything asked, until the other side is gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # progress bars and warnings
        os.dup2(null, stream)
    try:
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
