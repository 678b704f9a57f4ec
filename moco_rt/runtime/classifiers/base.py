"""The classes of classifiers with exits have this in common: sites, rules, a policy, a monitor, files."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moco_rt._C import Results
from moco_rt.architectures import IMAGES, Source, find_source, load_model, warn_where_untrained
from moco_rt.architectures.conversion import Dtype, describe
from moco_rt.architectures.pipelines import PipelineModel
from moco_rt.architectures.sites import exit_sites
from moco_rt.policies.bag_of_tokens import AnyOffRamp
from moco_rt.policies.conditions import Condition, LinearCondition
from moco_rt.policies.findings import SearchReport
from moco_rt.policies.fingerprints import check_made_for, is_made_for, loading_identity, model_identity, numeric_form
from moco_rt.policies.monitor import Alarm, Monitor, watch
from moco_rt.policies.policy import Exit, Policy, PolicyState
from moco_rt.policies.promised import describe_promise
from moco_rt.quantization.hf_quantizer import is_int8
from moco_rt.runtime import checkpoints
from moco_rt.runtime.backed_module import BackedModule
from moco_rt.runtime.backends import WholeBackend
from moco_rt.runtime.checkpoints import Checkpoint
from moco_rt.runtime.classifiers.given import WithGiven
from moco_rt.runtime.classifiers.saving import check_can_be_saved
from moco_rt.runtime.exit_points import CompiledExitPoint, ExitPoint, compile_exits
from moco_rt.runtime.outputs import EarlyExitOutput

if TYPE_CHECKING:
    from typing_extensions import Self


class EarlyExitClassifier(WithGiven, PipelineModel, BackedModule):
    """A fine-tuned classifier with exits, whatever it takes. Without rules it answers exactly as the model does.

    Args:
        model: a Hugging Face classifier; it is put in evaluation mode.
        backend: see the classes.
        dtype: see the classes.

    Raises:
        TypeError: model is not a classifier of what the class takes, or dtype is no dtype.
        ValueError: the backend that was asked for does not cover the model, or is unknown; its classes are not named
            from 0 on.
    """

    #: True for a tier of a certified cascade: the certificate about its exits is the cascade's.
    certified_elsewhere = False

    def __init__(self, model: Any, *, backend: str = "auto", dtype: Dtype | None = None):
        super().__init__(model, backend, dtype)
        self.sites: tuple[str, ...] = ()
        self._module_paths: dict[str, str] = {}
        if (architecture := self._backend.architecture) is not None:
            warn_where_untrained(architecture)
            self.sites = exit_sites(architecture.num_layers, of_texts=architecture.image_size is None)
            self._module_paths = architecture.module_paths
        self.policy = Policy(self.sites, model.config.num_labels, getattr(model.config, "hidden_size", 0))
        self.search_report: SearchReport | None = None  # of the search for its policy
        self._given: list[Self | Source] = []
        self._owner: list[Self] = []
        self._monitor: Monitor | None = None
        self._compiled: tuple[PolicyState, dict[str, CompiledExitPoint]] | None = None

    def add_rule(
        self,
        condition: Condition,
        predicted_class: int,
        layer: str,
        encoder_layer: int | None = None,
        module: str | None = None,
        *,
        feature: str | None = None,
        bound: float | None = None,
    ) -> None:
        """Let rows leave at a site; of several rules there, the first added that fires wins.

        Args:
            condition: a `LinearCondition`, which knows its feature and bound, or any callable that is given that
                `feature` of the rows, a float32 tensor (rows, size), and returns a bool mask (rows,).
            predicted_class: the class the rows leave with.
            layer: `"embeddings"`, `"encoder"` with the two arguments that follow, or a whole site name such as
                `"encoder.0.attention"`; the model's own module paths are understood too.
            encoder_layer: the layer's number, from 0.
            module: `"attention"` or `"output"`.
            feature: for a plain callable `cls` (default) or `mean`; a `LinearCondition` has its own.
            bound: the share of wrong exits that you vouch for: rows that leave have probability 1 - bound for their
                class. By default a `LinearCondition`'s own, which holds for the first rule that meets the rows, and
                0.05 for a plain callable, of which nothing is known.

        Raises:
            TypeError: condition is not callable, or the class not an integer.
            ValueError: the model does not choose one label of at least two; site, class, weight, feature or bound do
                not fit it. It keeps the rules it had.
        """
        self.check_takes_exits()
        parts = (layer, encoder_layer, module)
        site = ".".join(str(part) for part in parts if part is not None)
        site = self._module_paths.get(site, site)
        own_feature, own_bound = "cls", 0.05
        if isinstance(condition, LinearCondition):
            own_feature, own_bound = condition.feature, condition.bound
        feature = own_feature if feature is None else feature
        bound = own_bound if bound is None else bound
        self.policy.add(Exit(site, operator.index(predicted_class), condition, feature, bound))

    def add_off_ramp(self, off_ramp: AnyOffRamp, site: str) -> None:
        """Let rows leave at a site with the class that an off-ramp predicts where it is sure enough.

        Raises:
            ValueError: the model does not choose one label of at least two; site, classes or size do not fit it.
        """
        self.check_takes_exits()
        self.policy.add(Exit.of(off_ramp, self._module_paths.get(site, site)))

    def check_takes_exits(self) -> None:
        """Refuse exits where they cannot settle anything.

        Raises:
            ValueError: the model does not choose one label of at least two, or is run as a whole.
        """
        self.policy.task.for_model(self.config)
        if isinstance(self._backend, WholeBackend):
            raise ValueError(f"exits need the backend packed or reference (got whole, because {self._backend.reason})")

    def _check_form(self) -> None:
        """Refuse the model's numeric form where exits or a certificate were made for another."""
        self._check_policy({"dtype": numeric_form(self.model)})

    def _check_policy(self, own: Mapping[str, Any]) -> None:
        """Refuse exits or a certificate that were made for another model than is described."""
        if self.policy.exits or self.policy.certificate is not None or self.certified_elsewhere:
            check_made_for(self.policy.made_for, own, "the policy")

    def _note_change(self) -> None:
        """Note whether the model still is the one that its exits, or a certificate, were made for."""
        if self.policy.made_for:
            self.policy.is_of_model = is_made_for(self.policy.made_for, model_identity(self.model))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the C classes by their number."""
        return tuple(str(self.config.id2label[c]) for c in range(self.config.num_labels))

    def lengths_of(self, rows: Sequence[Any]) -> NDArray[np.int64]:
        """Return how many tokens each of N rows has: (N,) int64."""
        raise NotImplementedError

    def batch_of(self, rows: Sequence[Any]) -> Any:
        """Return rows as the one batch that `run_batch` takes."""
        raise NotImplementedError

    def run_batch(self, exits: Mapping[str, ExitPoint], batch: Any) -> Results:
        """Classify a batch that `batch_of` returned, with these exits by site."""
        raise NotImplementedError

    def report(self) -> str:
        """Return the layers in int8, the certificate as a table, the forms that were tried, where answers change.

        Where another certified step is in use than was chosen it has that step's own counts and time, and no table.
        """
        path, report = self.policy.path, self.search_report
        lines = [*([describe(self.model)] if is_int8(self.model) else []), describe_promise(self.policy)]
        if self.policy.has_stepped:  # what else there is to say is about the chosen step
            return "\n".join(lines)
        lines += [] if path is None else path.policies.compare_variants()
        return "\n".join([*lines, *([] if report is None else report.remarks.splitlines())])

    def monitor(
        self,
        rate: float = 0.01,
        on_alarm: Callable[[Alarm], None] | None = None,
        *,
        delta: float | None = None,
        seed: int | None = None,
    ) -> Monitor:
        """From now on, run a random share of the rows that left through the given model too; step back where they err.

        For what it takes see `Monitor`, which it returns: `processes` hold the evidence by exit; saved with the model.
        It goes on from what a monitor before it, such as one that was loaded, has seen of the step in use.
        """
        before = None if self._monitor is None else self._monitor.state()
        self._monitor = Monitor(self.policy, rate, on_alarm, delta=delta, seed=seed)
        if before is not None:
            self._monitor.restore(before)
        return self._monitor

    def save_pretrained(self, directory: str | Path) -> None:
        """Write model, what prepares its inputs, policy, what a monitor has seen and the report of the search.

        The files take the place of those that are there when all are written: the directory may be the one that the
        model was loaded from. A tokenizer or image processor that lies there stays where the model carries none.

        Raises:
            ValueError: a rule is a plain callable, which has no form on disk, the policy is of other weights, or the
                model would not be loaded as what it is, see `check_can_be_saved`.
        """
        for model in (self.model, *([self.given.model] if self._given else [])):
            check_can_be_saved(model)
        self._check_policy(own := model_identity(self.model))
        self.policy.made_for |= own
        if self._given:
            self.policy.made_for["given"] = model_identity(self.given.model)
        with checkpoints.replacing(directory) as fresh:
            if self.sites:
                checkpoints.save(fresh, Checkpoint(self.policy, self._monitor, self.search_report))
            self.model.save_pretrained(fresh)
            self._save_preparation(fresh)
            if self._given:
                self.given.model.save_pretrained(fresh / checkpoints.GIVEN)

    def _save_preparation(self, directory: Path) -> None:
        """Write what prepares the model's inputs, where it carries that."""
        raise NotImplementedError

    def _find_preparation(self, source: Source) -> None:
        """Carry what prepares the model's inputs, where it lies with the model."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        backend: str = "auto",
        dtype: Dtype | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        device_map: Any = None,
    ) -> Self:
        """A model with its policy and what prepares its inputs, from a directory or by its name on the hub.

        Args:
            name: where `save_pretrained` wrote, or any classifier, which then has no exits.
            backend: see the class.
            dtype: see the class; a policy is of one dtype.
            revision: branch, tag or commit on the hub, of model and policy; None: the main branch.
            token: for the hub; None: the one that `hf auth login` stored.
            local_files_only: take nothing but what was downloaded before.
            device_map: see transformers; None: the CPU.

        Raises:
            OSError: there is no such model.
            ValueError: the policy is not of this model, or not of this dtype.
        """
        source = find_source(Source(str(name), revision, token, local_files_only))
        model = cls(load_model(source, device_map, images=cls.takes == IMAGES), backend=backend, dtype=dtype)
        model.load_policy(source)
        model._find_preparation(source)
        return model

    def load_policy(self, source: str | Path | Source) -> None:
        """Take a policy from a directory or by a name on the hub, if there is one; refuses one of another model.

        Raises:
            OSError: there is no such directory, and no policy of that name on the hub.
            ValueError: the policy is not of this model, or not of this dtype.
        """
        source = checkpoints.policy_source(source)
        if not checkpoints.has_policy(source):
            return
        if not self.sites:
            self.check_takes_exits()
        found = checkpoints.load(source, self.policy.without_exits(loading_identity(self.model)))
        self.policy, self._monitor, self.search_report = found.policy, found.monitor, found.search_report
        self._find_given(source)

    def _answer(
        self, run: Callable[[Mapping[str, ExitPoint]], Results], run_full: Callable[[Tensor], Results]
    ) -> EarlyExitOutput:
        """Run a batch with the policy's exits, and let the monitor look at it.

        Args:
            run: runs the batch with these exits by site.
            run_full: the model as it was given on some rows of the batch, by their places: (rows,) int64.
        """
        state, exits = self._compiled_policy()
        results = run(exits)
        if self._monitor is not None:
            watch(self._monitor, results, run_full, state.step)
        device = self.device
        return EarlyExitOutput(*(x.to(device) for x in (results.logits, results.exit_site, results.exit_rule)))

    def _compiled_policy(self) -> tuple[PolicyState, dict[str, CompiledExitPoint]]:
        policy, compiled = self.policy, self._compiled
        state = policy.state
        if compiled is None or compiled[0] is not state:
            compiled = (state, compile_exits(policy))
            self._compiled = compiled
        return compiled
