"""Rows: what counts as one, where each stands, keys that two files must share, names that lead out of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsol.datasets.annotations import Rows, are_boxes, read_lines, read_table, read_xml, safe_join
from wsol.errors import UserError

OUTSIDE = ["", ".", "..", "/etc/passwd", "a/../../b", "../a", "a/..", "C:\\a", "C:a", "\\\\server\\a", "..\\a", "a\0b"]


def lines(path: Path, text: str, *columns: str, separator: str | None = ",") -> Rows:
    path.write_text(text)
    return read_lines(path, columns, separator)


def test_separators_in_the_column_that_may_hold_them(tmp_path: Path) -> None:
    commas = lines(tmp_path / "a.txt", "cat, tabby/1.jpg,3\n\n  \ndog/2.jpg,4", "image id", "label")
    assert commas["image id"] == ["cat, tabby/1.jpg", "dog/2.jpg"]
    assert commas.integers("label").tolist() == [3, 4]
    assert commas.where(1) == f"{tmp_path / 'a.txt'}, line 4"
    spaces = lines(tmp_path / "b.txt", " 1 a file.jpg \n2\tb.jpg\n", "image id", "file", separator=None)
    assert spaces["file"] == ["a file.jpg", "b.jpg"]


def test_empty_file(tmp_path: Path) -> None:
    rows = lines(tmp_path / "a.txt", "", "image id", "x", "y")
    assert (len(rows), rows["x"]) == (0, [])
    assert rows.numbers(["x", "y"]).shape == (0, 2)


def test_match(tmp_path: Path) -> None:
    rows, listing = lines(tmp_path / "a.txt", "b\na\nb\nc", "id"), lines(tmp_path / "ids.txt", "a\nb", "id")
    assert rows.match(listing, "id", extra=True).tolist() == [1, 0, 1, -1]
    assert [group.tolist() for group in rows.groups(listing, "id", extra=True)] == [[1], [0, 2]]
    with pytest.raises(UserError, match=r"a\.txt, line 3: 'b' .*line 1"):
        rows.one_each(listing, "id", extra=True)
    with pytest.raises(UserError, match=r"a\.txt, line 4: 'c' .*ids\.txt"):
        rows.match(listing, "id")
    with pytest.raises(UserError, match=r"a\.txt .*'d'.*/ids\.txt"):
        rows.match(lines(tmp_path / "ids.txt", "a\nb\nd\ne\nc", "id"), "id")
    once = lines(tmp_path / "a.txt", "b\nc\na", "id")
    assert once.one_each(listing, "id", extra=True).tolist() == [2, 0]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"list\.txt, line 3: "):
        safe_join(Path("data"), name, "list.txt, line 3")
    if name:
        with pytest.raises(UserError, match=r"a\.txt, line 5: "):
            rows = lines(tmp_path / "a.txt", f"a..b/c...jpg\n猫/…/ä b.jpg\n~/a\na#b&c;d\n{name}", "id")
            rows.check_paths("id", Path("i"))


def test_boxes() -> None:
    corners = np.array([[0, 0, 9, 9], [4, 4, 4, 4], [5, 0, 4, 9], [0, 0, np.nan, 1], [-1, 0, 5, 5], [0, 0, np.inf, 3]])
    assert are_boxes(corners).tolist() == [True, True, False, False, False, False]
    assert are_boxes(corners, least=-np.inf).tolist() == [True, True, False, False, True, False]


def test_lines_of_a_table_with_empty_ones_further_columns_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('image, note, x\n"a, b.jpg","1, 2",3\n\n\nc.jpg,,NA\n', encoding="utf-8-sig")
    rows = read_table(path, ["image", "x"])
    assert (rows["image"], rows["x"]) == (["a, b.jpg", "c.jpg"], ["3", "NA"])
    assert rows.where(1) == f"{path}, line 5"
    with pytest.raises(UserError, match=r"a\.csv, line 5: .*NA"):
        rows.numbers(["x"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.csv", b"image;x\n"), ("b.csv", b""), ("b.csv", b"image,x\ncat/\xff.jpg,1\n"),
        ("b.csv", b"image,x\na,1\nb,2,3\n"), ("b.parquet", b"PAR1 not really"), ("b.xlsx", b""),
    ],
)  # fmt: skip
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_table(tmp_path / name, ["image", "x"])


@pytest.mark.parametrize("text", ["<annotations/>", "<annotation><object><name> </name></object></annotation>"])
def test_xml_of_another_kind(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(UserError, match="a.xml"):
        read_xml([path])


def test_xml_without_a_size(tmp_path: Path) -> None:
    box = "<bndbox><xmin> 1.5 </xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    path = tmp_path / "a.xml"
    path.write_text(f"<annotation><size><width>0</width></size><object><name>dog</name>{box}</object></annotation>")
    sizes, objects = read_xml([path])
    assert (sizes, objects["image"], objects["difficult"]) == ([None], [0], [""])
    assert objects.numbers(["xmin", "ymin", "xmax", "ymax"]).tolist() == [[1.5, 1, 9, 9]]
