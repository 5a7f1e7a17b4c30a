"""Parts of a dataset."""

from __future__ import annotations

import pytest

from wsol.datasets import Shapes
from wsol.datasets.subset import First, choose_classes
from wsol.errors import UserError


def test_first_samples_and_what_they_share(shapes: Shapes) -> None:
    part = First(shapes, 4)
    assert len(part) == 4
    assert [s.sample_id for s in part] == [shapes[i].sample_id for i in range(4)]
    assert part.labels.tolist() == shapes.labels[:4].tolist()
    assert (part.name, part.split, part.classes, part.ids) == ("shapes", "test", shapes.classes, shapes.ids)
    assert part.knobs == shapes.knobs


def test_first_is_never_more_than_there_are(shapes: Shapes) -> None:
    assert len(First(shapes, 999)) == len(shapes)


@pytest.mark.parametrize("index", [4, -1])
def test_first_has_an_end(shapes: Shapes, index: int) -> None:
    with pytest.raises(IndexError):
        First(shapes, 4)[index]


@pytest.mark.parametrize("count", [0, -3])
def test_first_of_nothing_is_refused(shapes: Shapes, count: int) -> None:
    with pytest.raises(UserError, match=f"limit={count}"):
        First(shapes, count)


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
