"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import wsol.io
from wsol.errors import UserError
from wsol.io import atomic_write, check_declared, write_text


def test_takes_the_place_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary != path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="table.csv"), atomic_write(tmp_path / "table.csv"):
        pass
    assert not list(tmp_path.iterdir())


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.md", "τ ≥ 0.5\n猫\n")
    assert (tmp_path / "a.md").read_bytes() == "τ ≥ 0.5\n猫\n".encode()


def test_whoever_reads_the_old_file_reads_it_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_large_table_is_read_where_its_parts_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the sweeps of 50,000 images and thirty methods, which are 10 GB unpacked."""
    path = tmp_path / "sweeps.parquet"
    parquet.write_table(pa.table({"x0": np.arange(4000)}), path, row_group_size=1000)
    size = parquet.read_metadata(path).row_group(0).total_byte_size
    monkeypatch.setattr(wsol.io, "LARGEST_TABLE", size + 100)
    assert check_declared(path, largest=10 * size) == path
    with pytest.raises(ValueError):
        check_declared(path, largest=2 * size)
    monkeypatch.setattr(wsol.io, "LARGEST_TABLE", size // 2)
    with pytest.raises(ValueError):
        check_declared(path, largest=10 * size)
