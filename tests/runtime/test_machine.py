"""What is said about the machine, and where it is said."""

from __future__ import annotations

import logging

import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel
from moco_rt._C import can_multiply, cpu_isa
from moco_rt.cli import main
from moco_rt.runtime import machine
from moco_rt.runtime.machine import describe_machine


def said(text):
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_every_numeric_form_says_its_kernels_or_why_there_are_none():
    lines = said(describe_machine())
    assert lines["kernels"].startswith(cpu_isa())
    for form, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("int8", torch.int8)):
        assert lines[form] in (cpu_isa(), "oneDNN") if can_multiply(dtype) else lines[form].startswith("not here: ")
    assert lines["threads"].split()[0].isdigit()


def test_the_reason_is_the_bound_where_there_is_one(monkeypatch):
    monkeypatch.setattr(machine, "can_multiply", lambda dtype: dtype != torch.bfloat16)
    for name in ("MOCO_MAX_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    assert "the processor has no products of bfloat16" in said(describe_machine())["bfloat16"]
    monkeypatch.setenv("MOCO_MAX_ISA", "avx2")
    assert said(describe_machine())["bfloat16"] == "not here: kernels are bounded by MOCO_MAX_ISA=avx2"


def test_what_is_not_installed_is_said(monkeypatch):
    def missing(name):
        raise machine.PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", missing)
    monkeypatch.delenv("MOCO_FAST_TEXTS", raising=False)
    lines = said(describe_machine())
    assert lines["versions"].count("(not installed)") == 3
    assert "fast-texts is not installed" in lines["texts"]


def test_the_command_prints_it(capsys):
    assert main(["info"]) == 0
    assert said(capsys.readouterr().out)["kernels"] == said(describe_machine())["kernels"]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_the_log_has_it_at_debug_level(tiny_bert, caplog, level):
    with caplog.at_level(level, logger="moco_rt"):
        EarlyExitTextClassificationModel(tiny_bert(1, 32, 2), backend="packed")
    assert ("kernels:" in caplog.text) == (level == logging.DEBUG)
