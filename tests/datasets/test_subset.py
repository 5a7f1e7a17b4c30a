"""Some of a dataset's classes."""

from __future__ import annotations

import pytest

from wsol.datasets.subset import choose_classes
from wsol.errors import UserError


def test_classes_come_in_the_order_asked_for() -> None:
    assert choose_classes(["a", "b", "c"], None, "x") == ("a", "b", "c")
    assert choose_classes(["a", "b", "c"], ["c", "a"], "x") == ("c", "a")
    assert choose_classes(["cat", "dog"], "dog", "x") == ("dog",)


def test_unknown_class_names_the_nearest_and_where() -> None:
    with pytest.raises(UserError, match=r"'n0144353' is not among the 2 classes of words\.txt; .*n01443537"):
        choose_classes(["n01443537", "n02123045"], ["n0144353"], "words.txt")


@pytest.mark.parametrize("wanted", [[], ["a", "a"]])
def test_none_or_twice_is_refused(wanted: list[str]) -> None:
    with pytest.raises(UserError, match="at least one class, and each only once"):
        choose_classes(["a", "b"], wanted, "x")
