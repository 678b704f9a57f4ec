"""That a certificate says what the model then does, checked on the rows that it was certified on."""

from __future__ import annotations

import pytest
import torch

from moco_rt import EarlyExitTextClassificationModel


def assert_certificate_is_what_it_does(fast, given, tokenizer, rows, truth=None):
    """On the calibration rows: as many labels differ, and as many rows leave by each exit with each class.

    `given` is the Hugging Face model that was given, in its own dtype, whatever form of it `fast` runs.
    """
    certificate = fast.policy.certificate
    own = fast.predict(rows, tokenizer=tokenizer)
    plain = EarlyExitTextClassificationModel(given).predict(
        rows, tokenizer=tokenizer, max_length=fast.policy.made_for["max_length"]
    )
    wrong = own.labels != plain.labels
    assert certificate.rows == len(rows)
    assert certificate.disagreements == int(wrong.sum())
    left = {}
    for site, c, missed in zip(own.exit_site.tolist(), own.labels.tolist(), wrong.tolist(), strict=True):
        if site >= 0:
            fired, errors = left.get((fast.sites[site], c), (0, 0))
            left[fast.sites[site], c] = fired + 1, errors + missed
    assert left == {(count.site, count.predicted_class): (count.fired, count.wrong) for count in certificate.exits}
    for row in range(len(rows)):
        if own.exit_site[row] >= 0:
            thresholds = fast.policy.exits[own.exit_rule[row]].condition.thresholds
            exact = 1e-6 if fast.dtype == torch.float32 else 1e-2
            assert own.probs[row].max() > thresholds[own.labels[row]] - exact
    if truth is not None:
        assert certificate.accuracy == pytest.approx((own.labels.numpy() == truth).mean())
        assert certificate.accuracy_full == pytest.approx((plain.labels.numpy() == truth).mean())
