"""Dataclasses from what JSON kept of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pytest

from moco_rt.storage.fields import rebuild, typed_fields


@dataclass(frozen=True)
class Part:
    name: str
    share: float


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    count: int
    limit: float | None
    done: bool = False
    counts: Sequence[int] = ()
    by_name: Mapping[str, Sequence[float]] | None = None


WHOLE = Whole((Part("a", 0.5), Part("b", 1.0)), 3, None, True, (1, 2), {"x": (1.0, 2.0)})


def stored(**changes):
    return {**json.loads(json.dumps(asdict(WHOLE))), **changes}


def test_what_json_kept_comes_back():
    assert rebuild(Whole, stored()) == WHOLE
    least = {"parts": [], "count": 0, "limit": 1}
    assert rebuild(Whole, least) == Whole((), 0, 1.0)
    assert isinstance(rebuild(Whole, least).limit, float)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 1.5}, "1.5 for count, which must be int"),
        ({"count": True}, "True for count, which must be int"),
        ({"limit": "x"}, "'x' for limit, which must be float"),
        ({"limit": True}, "True for limit, which must be float"),
        ({"parts": {"name": "a"}}, "for parts, which must be tuple"),
        ({"parts": [{"name": "a", "share": []}]}, "[] for share, which must be float"),
        ({"parts": ["a"]}, "'a' for Part, which has fields"),
        ({"counts": [1, None]}, "None for counts, which must be int"),
        ({"by_name": {"x": 3}}, "3 for by_name"),
        ({"more": 1}, "'more', which is no field of Whole"),
        ({"done": "x" * 50}, f"'{'x' * 35} ... for done, which must be bool"),
    ],
)
def test_a_field_of_another_type_is_refused_by_its_name(changes, words):
    with pytest.raises(TypeError) as caught:
        rebuild(Whole, stored(**changes))
    assert words in str(caught.value)


def test_a_missing_field_is_named():
    without = stored()
    del without["count"]
    with pytest.raises(KeyError, match="count"):
        rebuild(Whole, without)
    assert "count" not in typed_fields(Whole, without)
