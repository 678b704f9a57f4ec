"""Fixtures that the tests of smaller models share."""

from __future__ import annotations

import contextlib

import pytest

from moco_rt.compression import recovery


@pytest.fixture
def often(monkeypatch):
    """Checkpoints after every step, and batches that are small enough for several of them."""
    monkeypatch.setattr(recovery, "_INTERVAL", -1.0)
    monkeypatch.setattr(recovery, "_TOKENS", 512)


@pytest.fixture
def interrupted_after(monkeypatch):
    """`with interrupted_after(5):` the recovery inside must be interrupted, after so many steps."""

    @contextlib.contextmanager
    def interrupt(steps):
        loss, begun = recovery._loss, []

        def counted(*arguments):
            begun.append(1)
            if len(begun) > steps:
                raise KeyboardInterrupt
            return loss(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(recovery, "_loss", counted)
            with pytest.raises(KeyboardInterrupt):
                yield

    return interrupt
