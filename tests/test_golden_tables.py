"""The gate: every table, page and comparison made from stored maps is what it was (see scripts/golden.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_table_made_from_stored_maps_is_what_it_was() -> None:
    spec = importlib.util.spec_from_file_location("golden", ROOT / "scripts" / "golden.py")
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    expected = json.loads((ROOT / "tests" / "golden" / "tables.json").read_text())
    digests = golden.table_digests()
    moved = [
        f"{run} {table}"
        for run, tables in expected.items()
        for table in tables
        if digests[run].get(table) != tables[table]
    ]
    assert not moved
    assert digests.keys() == expected.keys()
