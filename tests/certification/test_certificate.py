"""What a certificate says of itself."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from moco_rt.certification.certificate import Certificate, ClassPromise, ExitCount, all_but, at_most

CERTIFICATE = Certificate(
    0.02,
    0.05,
    1000,
    7,
    2e-3,
    1e-3,
    (ExitCount("embeddings", 1, 400, 7, 0.04),),
    rows_in_all=1000,
    disagreement_in_all=0.007,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "(7 of 1,000 distinct calibration rows differ)"),
        (
            {"rows_in_all": 4000, "disagreement_in_all": 0.0125},
            "(7 of 1,000 distinct calibration rows differ; of all 4,000, copies included, 1.25%)",
        ),
        ({"rows_in_all": None, "disagreement_in_all": None}, "(7 of 1,000 calibration rows differ)"),
    ],
    ids=["no copies", "copies", "version 1"],
)
def test_the_table_says_what_was_counted(changes, words):
    table = replace(CERTIFICATE, **changes).table()
    assert words in table.splitlines()[0]
    assert "40.0%" in table


def test_it_is_rebuilt_from_plain_values():
    assert Certificate.of(asdict(CERTIFICATE)) == CERTIFICATE
    assert Certificate.of(None) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": 0}, "rows must be at least 1 (got 0)"),
        ({"seconds": 0.0}, "seconds must be above 0 (got 0.0)"),
        ({"units": "cells"}, "units must be rows or queries (got 'cells')"),
    ],
    ids=["rows", "seconds", "units"],
)
def test_one_that_cannot_be_printed_is_refused(one_line_error, changes, words):
    with one_line_error(ValueError, f"Certificate: {words}"):
        Certificate.of(asdict(CERTIFICATE) | changes)


@pytest.mark.parametrize(("delta", "said"), [(0.05, "95%"), (0.001, "99.9%"), (1e-5, "99.999%"), (0.5, "50%")])
def test_confidence_is_never_rounded_to_certainty(delta, said):
    assert f"with {said} confidence" in Certificate(0.1, delta, 1000, 2, 1.0, 0.6, ()).table()


@pytest.mark.parametrize(
    ("share", "most", "rest"),
    [
        (0.05, "5.00%", "95.00%"),
        (1 - 0.95, "5.00%", "95.00%"),
        (1 - 0.9999, "0.010%", "99.990%"),
        (0.00564, "0.57%", "99.43%"),
        (4.99e-5, "0.0050%", "99.9950%"),
        (4.001e-5, "0.0041%", "99.9959%"),
        (0.0, "0.00%", "100.00%"),
        (1.0, "100.00%", "0.00%"),
        (0.123401, "12.35%", "87.65%"),
        (-0.00123, "-0.12%", "100.12%"),
        (1e-40, "0.0000000001%", "99.9999999999%"),
        (1e30, "100000000000000000000000000000000%", "-100000000000000000000000000000000%"),
        (float("inf"), "Infinity%", "-Infinity%"),
        (float("nan"), "NaN%", "NaN%"),
    ],
)
def test_shares_are_rounded_towards_the_weaker_promise(share, most, rest):
    assert (at_most(share), all_but(share)) == (most, rest)


def test_no_promise_is_more_than_what_was_shown():
    shown = replace(CERTIFICATE, alpha=0.00564, exits=(ExitCount("embeddings", 1, 400, 7, 0.040001),)).table()
    assert "for at least 99.43% of rows" in shown
    assert " 4.01%" in shown
    assert "at least 99.9950% of rows" in replace(CERTIFICATE, alpha=4.99e-5).sentence()
    drop = replace(CERTIFICATE, alpha=None, max_drop=4e-5, drop_bound=3.333e-5).sentence()
    assert drop.startswith("accuracy lower by at most 0.0040% of rows, with 95% confidence; shown: 0.0034% (")
    of_class = replace(CERTIFICATE, alpha=None, classes=(ClassPromise(0, 0.00001, 500_000, 0),)).sentence()
    assert "class 0: at least 99.9990% keep it" in of_class
