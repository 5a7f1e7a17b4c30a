"""Names that lead out of a folder are refused, all others are only names."""

from pathlib import Path

import pytest

from wsol.datasets.inside import inside
from wsol.errors import UserError


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "a/../../b",
        "../a",
        "a/..",
        "C:\\a",
        "C:a",
        "\\\\server\\a",
        "\\a",
        "..\\a",
        "a\0b",
    ],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(UserError, match=r"list\.txt, line 3: path .* leads out of data: give one inside it"):
        inside(Path("data"), name, "list.txt, line 3")


@pytest.mark.parametrize("name", ["a.jpg", "猫/…/ä b.jpg", "a..b/c...jpg", "~/a", "$HOME", "a#b&c;d", "<b>'\"</b>"])
def test_names_that_are_only_names(name: str) -> None:
    assert inside(Path("data"), name, "here") == Path("data") / name
