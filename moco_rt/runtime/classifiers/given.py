"""The model as it was given: whose answers are promised, whatever runs in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moco_rt.architectures import IMAGES, Source, find_file, load_model
from moco_rt.policies.fingerprints import check_made_for, model_identity, numeric_form
from moco_rt.policies.policy import Policy
from moco_rt.runtime import checkpoints

if TYPE_CHECKING:
    from typing_extensions import Self


#: What a policy knows of how rows are prepared: see `run_identity` and `image_run_identity`.
_PREPARATION = ("tokenizer", "max_length", "image_processor")


def preparation(made_for: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of what a policy is made for that says how rows are prepared."""
    return {name: value for name, value in made_for.items() if name in _PREPARATION}


class WithGiven:
    """A model that knows the model as it was given: another form of it, or itself without exits."""

    policy: Policy
    takes: str
    model: Any
    _form_as_given: str
    # At most one each; in lists, lest torch takes them for parts of the module.
    _given: list[Any]
    _owner: list[Any]  # the model that this one shares its weights with

    @property
    def runs_as_given(self) -> bool:
        """True where it is the model as it was given that runs, in no other form: nor in another dtype than its own."""
        return not self._given and numeric_form(self.model) == self._form_as_given

    def check_keeps_given(self) -> None:
        """Refuse to promise answers of the model as it was given where that is kept nowhere.

        Raises:
            ValueError: the model was put into another dtype, other than by `accelerate`.
        """
        if not self._given and not self.runs_as_given:
            got = f"got one in {numeric_form(self.model)}, made of one in {self._form_as_given}"
            raise ValueError(
                f"certify must be None where the model as it was given is not kept ({got}): "
                "accelerate(..., dtype=...) keeps it"
            )

    @property
    def given(self) -> Self:
        """The model as it was given, whose answers are promised, without exits.

        Where another form of it runs, it is read from its folder when it is first asked for. A model that was put into
        another dtype other than by `accelerate` keeps no other: this is then itself, in that dtype, see
        `runs_as_given`.

        Raises:
            OSError: the folder is not there any more.
            ValueError: what lies there is another model.
        """
        if not self._given:
            return self._without_exits()
        found: Self | Source = self._given[0]
        if isinstance(found, Source):
            found = self._given[0] = self._load_given(found)
        return found

    def take_given(self, model: Self) -> None:
        """Remember the model as it was given, another form of which this one is."""
        self._given = [model]
        self.policy.made_for["given"] = model_identity(model.model)
        self._share_preparation(model)

    @property
    def prepared_for(self) -> Mapping[str, Any]:
        """The preparation of rows: a fingerprint of what does it, and how many tokens texts are truncated to."""
        return preparation(self.policy.made_for)

    def _share_preparation(self, model: Self) -> None:
        """Let another model mean the same by the same answer, and be asked about the same rows."""
        model.policy.task = self.policy.task
        model.policy.made_for |= self.prepared_for

    def cut_to(self, max_length: int) -> Self:
        """Return the same model without exits, which truncates texts to so many tokens; itself, where it does."""
        if not self.policy.exits and self.policy.made_for.get("max_length") == max_length:
            return self
        plain = self._sharing_weights()
        plain.policy.made_for["max_length"] = max_length
        return plain

    def unwatched(self) -> Self:
        """Return the same model with the exits that it has now, whatever becomes of its own, and no monitor."""
        plain = self._sharing_weights()
        plain.policy.state = self.policy.state
        return plain

    def _without_exits(self) -> Self:
        """Return the same model without exits and what watches them; itself, where there are none."""
        return self._sharing_weights() if self.policy.exits else self

    def _sharing_weights(self) -> Self:
        """Return another model of the same weights and kernels, without exits, certificate and monitor."""
        plain = type(self).__new__(type(self))
        plain.__dict__.update(self.__dict__)
        plain.policy = self.policy.without_exits(dict(self.policy.made_for))
        plain.__dict__.update(_monitor=None, _compiled=None, search_report=None, _owner=[self])
        return plain

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move the weights by whom they belong to, who knows what they must stay."""
        if not self._owner:
            return super()._apply(*args, **kwargs)  # type: ignore[misc]
        self._owner[0]._apply(*args, **kwargs)
        return self

    def _choose_backend(self) -> None:
        """Choose for what the model is now, where weights are shared for both who share them."""
        if not self._owner:
            return super()._choose_backend()  # type: ignore[misc,no-any-return]
        self._owner[0]._choose_backend()
        return None

    def _backend_as_it_must_be(self) -> Any:
        """Return the backend, of shared weights that of their owner."""
        holder: Any = super() if not self._owner else self._owner[0]
        return holder._backend_as_it_must_be()

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy, which has weights of its own."""
        return {**super().__getstate__(), "_owner": []}  # type: ignore[dict-item]

    def _load_given(self, source: Source) -> Self:
        if find_file(source, "config.json") is None:
            raise OSError(f"{source.name} must hold the model as it was given, in {source.subfolder}/ (it is missing)")
        found: Any = type(self)(load_model(source, images=self.takes == IMAGES))  # type: ignore[call-arg]
        check_made_for(self.policy.made_for.get("given", {}), model_identity(found.model), "the policy")
        found._find_preparation(replace(source, subfolder=""))
        self._share_preparation(found)
        model: Self = found
        return model

    def _find_given(self, source: Source) -> None:
        """Note where the model as it was given lies beside a policy that was read, if it runs in another form."""
        there = "given" in self.policy.made_for
        self._given = [replace(source, subfolder=checkpoints.GIVEN)] if there else []
