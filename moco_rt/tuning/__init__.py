"""Tuning: the search for certified policies, and int8.

`moco_rt.accelerate` and `moco_rt.quantize` are what users call. The parts below are the face for benchmarks, which
study a model once and choose several policies from it:

    split = split_texts(texts, encode, calibration=..., seed=0)
    found = study_model(fast, split, seed=0)
    choose(fast, found, Confident(Guarantee(0.01, 0.05)))
    forms = study_tiers(tiers_in_forms(tiers, "auto", split), split, seed=0)  # of a cascade, see `choose_cascade`
    variants = study_variants(as_given(model, ...), "auto", split, seed=0)   # all numeric forms, see `choose_variant`
    all_baselines(found)                             # published methods on the same rows, see `score_exits`
"""

from moco_rt.studies.baselines import Baseline, all_baselines
from moco_rt.studies.recording import Recordings, record
from moco_rt.studies.splits import Split, split_texts
from moco_rt.studies.study import Study, candidate_sites, score_exits, study_model
from moco_rt.tuning.accelerate import choose, choose_variant
from moco_rt.tuning.accelerate_tiers import choose_cascade, tiers_in_forms
from moco_rt.tuning.cascade_study import study_tiers
from moco_rt.tuning.given import as_given
from moco_rt.tuning.variants import Variant, study_variants

__all__ = [
    "Baseline",
    "Recordings",
    "Split",
    "Study",
    "Variant",
    "all_baselines",
    "as_given",
    "candidate_sites",
    "choose",
    "choose_cascade",
    "choose_variant",
    "record",
    "score_exits",
    "split_texts",
    "study_model",
    "study_tiers",
    "study_variants",
    "tiers_in_forms",
]
