"""One call from a model, or several, and some texts to the fastest policy that can be certified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import torch

from moco_rt.architectures import MultiLabel, Ranking, Regression, SingleLabel
from moco_rt.cascades.cascade import Cascade
from moco_rt.cascades.tier import TierLike
from moco_rt.certification.promises import Confident, Promise, make_promise
from moco_rt.certification.selection import ExitCandidates, Selection, select
from moco_rt.inputs.images import Images
from moco_rt.inputs.texts import Texts
from moco_rt.policies.policy import CertifiedPath
from moco_rt.ranking.reranker import EarlyExitReranker
from moco_rt.runtime.classifiers.base import EarlyExitClassifier
from moco_rt.runtime.classifiers.image import EarlyExitImageClassificationModel
from moco_rt.runtime.classifiers.saving import warn_where_it_cannot_be_saved
from moco_rt.runtime.model import EarlyExitTextClassificationModel
from moco_rt.statistics.arguments import seed_of
from moco_rt.studies.leaving import with_log_odds
from moco_rt.studies.study import Study
from moco_rt.tuning.accelerate_ranking import accelerate_ranking
from moco_rt.tuning.accelerate_tiers import accelerate_tiers, prepare_tiers
from moco_rt.tuning.given import as_given
from moco_rt.tuning.options import ImageOptions, RankingOptions, TextOptions
from moco_rt.tuning.search_report import describe_search
from moco_rt.tuning.variants import DtypeChoice, Variant, study_variants

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def accelerate(
    model: torch.nn.Module, inputs: Iterable[Any], *, task: Ranking, **options: Unpack[RankingOptions]
) -> EarlyExitReranker: ...
@overload
def accelerate(
    model: torch.nn.Module, inputs: Texts, **options: Unpack[TextOptions]
) -> EarlyExitTextClassificationModel: ...
@overload
def accelerate(
    model: torch.nn.Module, inputs: Images, *, image_processor: Any, **options: Unpack[ImageOptions]
) -> EarlyExitImageClassificationModel: ...
@overload
def accelerate(
    model: list[TierLike] | tuple[TierLike, ...], inputs: Texts, **options: Unpack[TextOptions]
) -> Cascade: ...
def accelerate(
    model: Any,
    inputs: Texts,
    *,
    tokenizer: Any = None,
    image_processor: Any = None,
    task: Ranking | SingleLabel | MultiLabel | Regression | None = None,
    promise: str = "confident",
    agreement: float | Mapping[str, float] | None = None,
    max_drop: float | None = None,
    confidence: float = 0.95,
    dtype: DtypeChoice | None = "auto",
    seed: int = 0,
    calibration: Texts | None = None,
    labels: Any = None,
    max_length: int | None = None,
    columns: str | Sequence[str] | None = None,
    variants: Sequence[Any] = (),
    never_early: Sequence[str] = (),
) -> EarlyExitClassifier | Cascade:
    """Find the fastest way to the answers of a model, changed for a certified share of rows at most.

    The promise is about the model as it was given, in its own dtype, whatever runs in its place. Off-ramps learn its
    probabilities at every layer. A search makes one path of policies, over all numeric forms that are tried, from
    "nothing changes" to the fastest: each is faster than all with fewer changed answers. On rows that nothing has seen,
    Learn-then-Test with fixed-sequence testing (arXiv:2110.01052) finds how far along it the promise holds, and the
    fastest policy up to there is taken: to ask for less never gives a slower one. The model is put in evaluation mode,
    and not changed.

    Texts that the tokenizer turns into equal tokens (for a cascade the last tier's) are one unit: they are used for
    one of the three jobs only, and count once in the certificate. Where tiers before the last tell them apart, one of
    them is drawn at random, and the others take no part.

    Args:
        model: a Hugging Face `...ForSequenceClassification` or `...ForImageClassification`, or a pipeline or one of our
            models around it, of which model and backend are used, and no exits; or tiers of a cascade, see `Cascade`,
            from the fastest to the one whose labels count: exits inside tiers and the hand-over between them are then
            chosen together, and tiers that save no time are left out.
        inputs: texts, pairs, or rows with named columns, in whatever holds them (see `list_texts`), like those it will
            meet; labels are not needed. Texts that the model was fine-tuned on would make it look surer than it is:
            certify on others, see `calibration`. For a model that takes them, images, see its `predict`: they are
            opened several times, so paths take least memory, and those with equal pixels are one unit.
        tokenizer: the model's; None: loaded from where the model came from. Tiers bring their own. What is returned
            carries it.
        image_processor: the same of a model that takes images.
        task: what "the same answer" means; None: the same label, or where several labels may hold at once the same set
            of labels, as `MultiLabel()` says it. `SingleLabel(threshold={"toxic": 0.83})`: of a model that chooses one
            label, the same side of your own thresholds. `MultiLabel(threshold=...)`: the same set of labels whose
            probability is at least a threshold, 0.5 or those of a dict by name. `Regression(tolerance=...)`: of a model
            that gives numbers, or has one label, scores that differ by at most so much. `Ranking(keep_top=k)`: of a
            reranker, a model with one label, the same first k of a query's candidates; `inputs`, and `calibration`, are
            then tuples of a query and its documents, with the scores of the search as a third where they are known. But
            for the same label, the promise is `"confident"`.
        promise: what is promised. `"confident"`: of all rows, at least the share `agreement` keeps the label that the
            model as it was given gives. `"per class"`: the same of the rows of each class, whatever share of all rows
            it has. `"accuracy"`: the fast model is right on at most `max_drop` of all rows fewer than the given one,
            by `labels`; labels may change in both directions.
        agreement: that share; None: 0.99. With `"per class"` also a dict from names of classes to shares: nothing is
            then promised of the others.
        max_drop: a share of rows, 0.01 is one point of accuracy; with `"accuracy"` alone.
        confidence: the probability, over the choice of calibration rows, with which this must hold.
        dtype: `"auto"`: the model's own and all others that this processor has kernels for are tried, and what is
            fastest of all that is certified runs; tiers of a cascade are in one form all together. None: the model's
            own. Any other: that one, and where it cannot be certified the model as it was given, without exits.
            `"int8"` is the copy that `quantize` makes with the rows that off-ramps learn from.
        seed: of the split of the texts and of the off-ramps.
        calibration: texts for the certificate alone; None: 35% of the distinct `inputs`, of queries to rank 40%, are
            kept apart for it. Texts that stand in both certify only.
        labels: true classes of the calibration texts, or of `inputs` where there are none: class numbers from 0, or the
            model's names of classes, in a list, array, tensor or series (taken by position). They add accuracies to
            the certificate, over all calibration texts with their copies; `"accuracy"` needs them.
        max_length: in tokens; None: what model and tokenizer allow.
        columns: names the column of `inputs` and `calibration` that holds the text, or the two that hold a pair; None:
            `text`, and where there is one `text2` or `text_pair`; of images `image` or `img`.
        variants: smaller models that may run in place of the model, such as `compress` makes of it, with its classes
            and tokenizer; each is tried in the same dtypes, and taken where it is fastest of all that is certified.
            Texts that they have learnt from must not certify them: see `calibration`.
        never_early: names of classes that no row gets early: whoever writes texts to be taken for one of them must get
            past the whole model, so that no smaller one may run in its place.

    Returns:
        The model with its policy; `.policy.certificate` says what is promised, of a cascade `.certificate`. With too
        few distinct rows for the agreement that was asked for, the promise `"confident"` becomes the strictest that
        they can show, and the log says how many are needed. Where nothing pays, or nothing can be certified, as other
        promises with too few rows, it is the model as it was given, and the log says so.

    Raises:
        TypeError: model is not a classifier of texts or images, inputs is a single text or holds something else, or
            labels are not a sequence, variants not a list, or task is none.
        ValueError: it is for another task, there are too few distinct texts, one is not valid
            Unicode, a label is not a class of the model, a share is not inside (0, 1), the seed is no whole number from
            0 on, or an argument belongs to another promise.
    """
    seed = seed_of(seed)
    if isinstance(variants, str) or not isinstance(variants, Iterable):
        raise TypeError(f"variants must be a list of models (got {type(variants).__name__})")
    variants = list(variants)
    if isinstance(task, Ranking):
        unused = {
            "image_processor": image_processor,
            "labels": labels,
            "columns": columns,
            "variants": variants or None,
            "never_early": never_early or None,
        }
        for name, value in unused.items():
            if value is not None:
                raise ValueError(f"{name} must be None to rank")
        if promise != Confident.name:
            raise ValueError(f"promise must be 'confident' to rank (got {promise!r})")
        queries = make_promise(promise, agreement, max_drop, confidence, (), seed)
        assert isinstance(queries, Confident)
        return accelerate_ranking(model, inputs, calibration, tokenizer, task, queries, dtype, max_length, seed)
    if promise == "accuracy" and labels is None:
        raise ValueError("labels must be given with promise='accuracy' (got None)")
    if isinstance(model, list | tuple):
        if task is not None:
            raise ValueError(f"task must be None: tiers choose one label (got {task})")
        for name, value in (("tokenizer", tokenizer), ("image_processor", image_processor)):
            if value is not None:
                raise ValueError(f"{name} must be None: tiers take texts, and bring their own tokenizers")
        if variants:
            raise ValueError("variants must be empty: a smaller model can be a tier")
        if never_early:
            raise ValueError(
                f"never_early must be empty for tiers, which answer early in any class (got {never_early})"
            )
        tiers = prepare_tiers(model, max_length)
        wish = make_promise(promise, agreement, max_drop, confidence, tiers[-1].class_names or (), seed)
        return accelerate_tiers(tiers, inputs, calibration, labels, columns, wish, dtype, seed)
    if variants and never_early:
        raise ValueError(
            f"variants must be empty with never_early: a smaller model gives all classes early (got {len(variants)})"
        )
    given = as_given(model, tokenizer, image_processor, columns, max_length, task)
    warn_where_it_cannot_be_saved(given.model.model)
    task_of_model = given.model.policy.task
    if not task_of_model.has_labels and (promise != Confident.name or labels is not None):
        got = f"promise={promise!r}" if labels is None else "labels"
        raise ValueError(f"promise must be 'confident', and labels None, for {task_of_model} (got {got})")
    wish = make_promise(promise, agreement, max_drop, confidence, given.model.class_names, seed)
    held = held_classes(never_early, given.model)
    split = given.split(inputs, calibration, labels, seed)
    studied = study_variants(given, dtype, split, seed, variants)
    if held:
        studied = [replace(each, candidates=each.candidates.never_leaving(held)) for each in studied]
    fast = choose_variant(studied, wish)
    fast.policy.made_for |= given.identity(fast)
    if fast is not given.model:
        fast.take_given(given.model)
    return fast


def held_classes(never_early: Sequence[str], model: EarlyExitClassifier) -> list[int]:
    """Return the numbers of classes that no row gets early."""
    if isinstance(never_early, str):
        raise TypeError(f"never_early must be a list of names of classes (got {never_early!r})")
    names, task = list(model.class_names), model.policy.task
    if never_early and task.groups(len(names)) != len(names):
        raise ValueError(f"never_early must be empty for {task}, by which rows leave in no class (got {never_early})")
    for name in never_early:
        if name not in names:
            raise ValueError(f"never_early must be classes of the model, {', '.join(names)} (got {name!r})")
    return [number for number, name in enumerate(names) if name in never_early]


def choose_variant(variants: Sequence[Variant], promise: Promise) -> EarlyExitClassifier:
    """Return the model of the variant that is fastest of all that is certified, with its policy and the report.

    Args:
        variants: those that were studied, the first the model as it was given.
        promise: the statement to be shown.
    """
    candidates = [variant.candidates for variant in variants]
    chosen = select(candidates, promise, variants[0].model.class_names)
    variant = variants[chosen.variant]
    _take(variant.model, variant.study, variant.candidates, chosen)
    variant.model.search_report = describe_search(variant.model, variant.study, chosen, candidates)
    return variant.model


def choose(fast: EarlyExitClassifier, found: Study, promise: Promise) -> Selection:
    """Give a model the fastest policy that a study certifies, in place of the one that it has.

    Args:
        fast: the model that was studied.
        found: the study.
        promise: the statement to be shown.
    """
    candidates = found.candidates()
    chosen = select([candidates], promise, fast.class_names)
    _take(fast, found, candidates, chosen)
    return chosen


def _take(fast: EarlyExitClassifier, found: Study, candidates: ExitCandidates, chosen: Selection) -> None:
    """Give a model the policy that was chosen of its study."""
    fast.policy = fast.policy.without_exits()
    fast.policy.certificate = chosen.certificate
    ramps = [found.off_ramps[place] for place in chosen.path_places]
    if found.task.has_labels:
        scores, path = candidates.ordering.scores.at(chosen.path_places), chosen.path
        ramps = with_log_odds(ramps, scores, found.ordering.given, path.thresholds, path.chosen)
    bounded = [replace(ramp, bounds=chosen.bounds(str(ramp.site))) for ramp in ramps]
    fast.policy.path = CertifiedPath(bounded, chosen.path)
    fast.policy.take_step(chosen.path.chosen)
