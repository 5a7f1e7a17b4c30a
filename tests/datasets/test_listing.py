"""Rows of text: what counts as a row, where each stands, and keys that two files must share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsol.datasets.listing import Listing
from wsol.errors import UserError


def test_separators_in_the_column_that_may_hold_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("cat, tabby/1.jpg,3\n\n  \ndog/2.jpg,4")
    commas = Listing(tmp_path / "a.txt", ["image id", "label"])
    assert commas["image id"] == ["cat, tabby/1.jpg", "dog/2.jpg"]
    assert commas.integers("label").tolist() == [3, 4]
    assert commas.where(1) == f"{tmp_path / 'a.txt'}, line 4"
    (tmp_path / "b.txt").write_text(" 1 a file.jpg \n2\tb.jpg\n")
    spaces = Listing(tmp_path / "b.txt", ["image id", "file"], separator=None)
    assert spaces["file"] == ["a file.jpg", "b.jpg"]


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    listing = Listing(tmp_path / "a.txt", ["image id", "x", "y"])
    assert (len(listing), listing["x"]) == (0, [])
    assert listing.floats(["x", "y"]).shape == (0, 2)


def test_positions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b\na\nb\nc")
    listing, known, source = Listing(tmp_path / "a.txt", ["id"]), {"a": 0, "b": 1}, Path("ids.txt")
    found = listing.positions("id", known, source, once=False, extra=True)
    assert found.tolist() == [1, 0, 1, -1]
    assert found.dtype == np.int64
    with pytest.raises(UserError, match=r"a\.txt, line 3: id 'b' stands in line 1 already; remove one"):
        listing.positions("id", known, source, extra=True)
    with pytest.raises(UserError, match=r"a\.txt, line 4: id 'c' is not in ids\.txt; add it there, or remove the line"):
        listing.positions("id", known, source, once=False)
    with pytest.raises(UserError, match=r"a\.txt has no line for id 'd', which is in ids\.txt \(2 such\); add one"):
        listing.positions("id", known | {"d": 2, "e": 3, "c": 4}, source, once=False)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n\x00"])
def test_what_is_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.txt can't be read as UTF-8 text: .*; replace the file"):
        Listing(tmp_path / "a.txt", ["id"])


@pytest.mark.parametrize("name", ["..", "a/../../b", "/b", "C:b", "\\\\host\\b", "a\0b", "."])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text(f"a..b/c.jpg\n{name}")
    with pytest.raises(UserError, match=r"a\.txt, line 2: path .* leads out of images: give one inside it"):
        Listing(tmp_path / "a.txt", ["id"]).safe("id", Path("images"))
