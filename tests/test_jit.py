"""Compiled functions work where nothing can be written, and are kept elsewhere where the package cannot be written."""

import numba
import pytest

from wsol.jit import jit


def test_without_any_place_for_a_cache_it_compiles_in_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def refusing(*types: str, cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return njit(*types, **options)

    monkeypatch.setattr(numba, "njit", refusing)
    assert jit(lambda x: x + 1)(2) == 3
    assert jit("i8(i8)")(lambda x: x + 1)(2) == 3
