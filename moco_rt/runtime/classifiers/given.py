"""The model as it was given: whose answers are promised, whatever runs in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moco_rt.architectures import IMAGES, Source, find_file, load_model
from moco_rt.policies.fingerprints import check_made_for, model_identity
from moco_rt.policies.policy import Policy
from moco_rt.runtime import checkpoints

if TYPE_CHECKING:
    from typing_extensions import Self


class WithGiven:
    """A model that knows the model as it was given: another form of it, or itself without exits."""

    policy: Policy
    takes: str
    _given: list[Any]  # at most one; in a list, lest torch takes it for a part of the module

    @property
    def runs_as_given(self) -> bool:
        """True where it is the model as it was given that runs, in no other form."""
        return not self._given

    @property
    def given(self) -> Self:
        """The model as it was given, whose answers are promised, without exits.

        Where another form of it runs, it is read from its folder when it is first asked for.

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
        self.policy.made_for["given"] = model_identity(model.model)  # type: ignore[attr-defined]

    def _without_exits(self) -> Self:
        """Return the same model without exits and what watches them; itself, where there are none."""
        return self._sharing_weights() if self.policy.exits else self

    def _sharing_weights(self) -> Self:
        """Return another model of the same weights and kernels, without exits, certificate and monitor."""
        plain = type(self).__new__(type(self))
        plain.__dict__.update(self.__dict__)
        plain.policy = self.policy.without_exits(dict(self.policy.made_for))
        plain.__dict__.update(_monitor=None, _compiled=None, search_report=None)
        return plain

    def _load_given(self, source: Source) -> Self:
        if find_file(source, "config.json") is None:
            raise OSError(f"{source.name} must hold the model as it was given, in {source.subfolder}/ (it is missing)")
        found: Any = type(self)(load_model(source, images=self.takes == IMAGES))  # type: ignore[call-arg]
        check_made_for(self.policy.made_for.get("given", {}), model_identity(found.model), "the policy")
        found._find_preparation(replace(source, subfolder=""))
        model: Self = found
        return model

    def _find_given(self, source: Source) -> None:
        """Note where the model as it was given lies beside a policy that was read, if it runs in another form."""
        there = "given" in self.policy.made_for
        self._given = [replace(source, subfolder=checkpoints.GIVEN)] if there else []
