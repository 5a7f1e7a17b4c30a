"""The gallery's data: which samples are chosen, and that heatmaps and boxes come out as they went in."""

import base64

import numpy as np
import pandas as pd
import pytest

from wsol.localization import Protocol, load_protocol, sweep_thresholds
from wsol.report.gallery import REASONS, choose_samples, coded_map, coded_sweep

IDS = [f"{number:03d}" for number in range(300)]


def outcomes(methods=("cam", "gradcam"), seed=0):
    random = np.random.default_rng(seed)
    kinds = np.array(["right", "part", "elsewhere"], object)
    tables = [
        pd.DataFrame(
            {
                "method": method,
                "sample_id": IDS,
                "iou": random.random(len(IDS)),
                "error_kind": kinds[random.choice(3, len(IDS), p=[0.9, 0.08, 0.02])],
            }
        )
        for method in methods
    ]
    return pd.concat(tables, ignore_index=True)


def test_a_third_each_of_evenly_spaced_disagreeing_and_of_each_kind():
    table = outcomes()
    chosen = choose_samples(table, IDS, 60)
    assert len(chosen) == 60
    assert [list(chosen.values()).count(reason) for reason in range(len(REASONS))] == [20, 20, 20]
    assert list(chosen) == sorted(chosen)
    even = [int(name) for name, reason in chosen.items() if reason == 0]
    assert even[0] == 0
    assert even[-1] == 299
    assert set(np.diff(even)) <= {15, 16}
    wide = table.pivot(index="sample_id", columns="method", values="iou")
    spread = (wide["cam"] - wide["gradcam"]).abs().drop([name for name, reason in chosen.items() if reason == 0])
    assert {name for name, reason in chosen.items() if reason == 1} == set(spread.nlargest(20).index)
    kinds = table[table["method"] == "cam"].set_index("sample_id")["error_kind"]
    of_kinds = kinds[[name for name, reason in chosen.items() if reason == 2]].value_counts()
    assert of_kinds["elsewhere"] >= min(5, (kinds == "elsewhere").sum() - 2)
    assert of_kinds["part"] >= 5


@pytest.mark.parametrize("count", [1, 2, 60])
def test_few_samples_and_one_method_are_no_trouble(count):
    table = outcomes(methods=("cam",))
    few = table[table["sample_id"] < "004"]
    chosen = choose_samples(few, IDS[:4], count)
    assert len(chosen) == min(count, 4)


def test_small_maps_keep_every_bit():
    stored = np.random.default_rng(0).standard_normal((14, 9)).astype(np.float16)
    stored /= np.abs(stored).max()
    coded = coded_map(stored.astype(np.float64) * 123.25)
    halves = np.frombuffer(base64.b64decode(coded["halves"]), "<f2").reshape(coded["shape"])
    assert (halves == stored).all()


def test_large_maps_are_reduced_and_keep_their_range():
    across = np.linspace(-2, 6, 256)[None] * np.ones((128, 1))
    coded = coded_map(across)
    assert coded["shape"] == (32, 64)
    levels = np.frombuffer(base64.b64decode(coded["bytes"]), np.uint8).reshape(coded["shape"])
    values = coded["low"] + levels / 255 * (coded["high"] - coded["low"])
    assert values[0] == pytest.approx(np.linspace(-1 / 3, 1, 64), abs=0.02)
    assert coded_map(across.clip(0, 1), is_score_map=True)["high"] == 1


@pytest.mark.parametrize("name", ["choe2020", "choe2020_v2", "zhou2016", "exact", "gao2021"])
def test_runs_give_back_every_box_and_comparison(name):
    rules = load_protocol(name)
    random = np.random.default_rng(3)
    score_map = random.random((40, 48))
    sweep = sweep_thresholds(score_map / score_map.max(), [8, 9, 30, 29], rules)
    runs = sweep.runs(rules.component)
    table = pd.DataFrame(runs.boxes, columns=["x0", "y0", "x1", "y1"])
    coded = coded_sweep(table.assign(threshold=sweep.thresholds[runs.first], iou=runs.iou), rules)
    assert (np.cumsum(coded["first"]) == runs.first).all()
    inclusive = sweep.to_inclusive().runs(rules.component).boxes
    edges = np.array(coded["boxes"], float).reshape(-1, 4)
    nothing = inclusive[:, 2] < inclusive[:, 0]
    assert (edges[nothing] == -1).all()
    late = inclusive[~nothing] + [0, 0, 1, 1]
    # Where a clipped box ends at the map's edge, the last pixel may be missing: the coded box doesn't say.
    assert np.abs(edges[~nothing] - late).max() <= (1 if rules.box_convention == "half_open_clipped" else 0)
    for delta in (0.3, 0.5, 0.7):
        rounded = np.array(coded["iou"])
        right = rounded > 10_000 * delta if rules.iou_comparison == ">" else rounded >= 10_000 * delta
        assert (right == (runs.iou > delta if rules.iou_comparison == ">" else runs.iou >= delta)).all()


@pytest.mark.parametrize(("comparison", "right"), [(">=", [False, True, True]), (">", [False, False, True])])
def test_an_iou_at_the_limit_is_right_as_the_protocol_says(comparison, right):
    rules = Protocol(iou_comparison=comparison)
    table = pd.DataFrame(0.0, index=range(3), columns=["threshold", "x0", "y0", "x1", "y1"])
    coded = coded_sweep(table.assign(iou=[0.49999, 0.5, 0.50001]), rules)["iou"]
    assert [iou > 5000 if comparison == ">" else iou >= 5000 for iou in coded] == right
