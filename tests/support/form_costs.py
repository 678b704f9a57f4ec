"""Costs of the numeric forms of a model, made up: what is chosen does not depend on this machine's mood."""

from __future__ import annotations

import numpy as np

from moco_rt.policies.fingerprints import numeric_form
from moco_rt.studies.costs import Costs


def costs_of_forms(**seconds):
    """A stand-in for `measure_costs`: seconds of a row by numeric form, 1 where a form is not named.

    Sites lie evenly on the way.
    """

    def measure(models, rows, off_ramps):  # noqa: ARG001
        sites = list(dict.fromkeys(off_ramp.site for off_ramp in off_ramps))
        reach = np.array([[*((sites.index(ramp.site) + 1) / (len(sites) + 1) for ramp in off_ramps), 1.0]])
        scoring, fixed = np.full((1, len(off_ramps)), 0.001), np.zeros(len(off_ramps) + 1)
        of_row = [seconds.get(numeric_form(model.model), 1.0) for model in models]
        return [Costs(np.array([1.0]), each * reach, scoring, fixed) for each in of_row]

    return measure
