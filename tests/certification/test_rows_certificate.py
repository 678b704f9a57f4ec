"""The certificate about these very rows: what it says, and on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from moco_rt.certification.rows_certificate import RowsCertificate

CERTIFICATE = RowsCertificate(25_000, 3000, 12, 247 / 25_000, 0.99, 0.95, 31, False, 0)


def test_a_certificate_comes_back_from_json():
    for certificate in (CERTIFICATE, replace(CERTIFICATE, step=None, in_full=True, bound=0.0)):
        again = RowsCertificate.of(json.loads(json.dumps(asdict(certificate))))
        assert again == certificate
        assert str(again) == str(certificate)


@pytest.mark.parametrize("rows", [1, 3, 7, 1000, 24_877])
def test_the_bound_is_a_number_of_rows(rows):
    for wrong in range(0, rows + 1, max(1, rows // 50)):
        assert replace(CERTIFICATE, rows=rows, bound=wrong / rows).differing == wrong


def test_it_says_in_one_sentence_what_holds():
    assert CERTIFICATE.delta == pytest.approx(0.05)
    assert str(CERTIFICATE) == (
        "at most 247 of 25,000 answers (0.99%) are not those of the model as it was given, with 95% confidence: "
        "3,000 rows were drawn at random and run in full, and 12 of them would have got another answer"
    )
    assert "at most 3 of 100,000 answers (0.0030%) are" in str(replace(CERTIFICATE, rows=100_000, bound=3e-5))
    in_full = replace(CERTIFICATE, rows=40, drawn=0, disagreements=0, bound=0.0, step=None, in_full=True)
    everything = "all 40 rows were run in full by the model as it was given: no answer differs"
    assert str(in_full) == everything
    assert str(replace(in_full, drawn=9, disagreements=3)) == (
        f"{everything} (9 rows were drawn at random and run in full, and 3 of them would have got another answer)"
    )
