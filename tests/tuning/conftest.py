"""Classifiers that have learnt something, and texts that they have not, which tests of `accelerate` share."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from split_samples import distinct_reviews

from moco_rt.certification import policy_search
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus
from moco_rt.policies.fingerprints import numeric_form
from moco_rt.studies import distillation
from moco_rt.studies.costs import Costs
from moco_rt.tuning import cascade_study

TEXTS = 1200
#: What a form of a tier takes of the time of float32.
FORMS = {"float32": 1.0, "bfloat16": 0.5, "int8": 0.25, "int8+bfloat16": 0.25}


@pytest.fixture(scope="session")
def trained():
    """A classifier of four layers that has learnt something, and its tokenizer."""
    reviews = make_corpus(1200, seed=0, median_words=12)
    return train_classifier([row.text for row in reviews], [row.label for row in reviews], seed=0)


@pytest.fixture(scope="session")
def reviews(trained):
    return distinct_reviews(trained[1], TEXTS)


@pytest.fixture(scope="session")
def texts(reviews):
    return [row.text for row in reviews]


@pytest.fixture(scope="session")
def large(trained):
    """The last tier of cascades, and its tokenizer."""
    model = copy.deepcopy(trained[0])
    model.config.seconds = 1.0
    return model, trained[1]


@pytest.fixture(scope="session")
def small():
    """A classifier that has learnt less, with words of its own, and its tokenizer."""
    corpus = make_corpus(1200, seed=0, median_words=12)[:600]
    return train_classifier([row.text for row in corpus], [row.label for row in corpus], seed=1)


@pytest.fixture(scope="module")
def tiers_cost(quick_off_ramps):  # noqa: ARG001
    """The large one takes a second, any other a tenth of it, whatever this machine's mood; and searches are short."""

    def made_up(models, rows, off_ramps):  # noqa: ARG001
        sites = [*dict.fromkeys(off_ramp.site for off_ramp in off_ramps)]
        reach = np.array([[*((sites.index(each.site) + 1) / (len(sites) + 1) for each in off_ramps), 1.0]])
        once, asked = np.zeros(reach.size), np.full((1, reach.size - 1), 0.001)
        seconds = [getattr(model.config, "seconds", 0.1) * FORMS[numeric_form(model.model)] for model in models]
        return [Costs(np.array([1.0]), each * reach, asked, once) for each in seconds]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moco_rt.studies.study.measure_costs", made_up)
        patch.setattr(cascade_study, "seconds_of_text", lambda work, texts: 1e-6)  # noqa: ARG005
        patch.setattr(distillation, "_FEWEST_STEPS", 30)
        patch.setattr(policy_search, "_POLICIES", 1000)
        patch.setattr(policy_search, "_FEWER", 250)
        yield
