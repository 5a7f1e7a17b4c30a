"""Protocols: what is refused and how it is said, presets, files that build upon each other."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from wsol import Protocol, load_protocol
from wsol.io import conf_dir
from wsol.localization import protocol_names, sweep_thresholds


def test_the_grid_is_arange_to_the_bit() -> None:
    assert np.array_equal(Protocol().grid(), np.arange(0, 1, 0.001))
    assert np.array_equal(Protocol(thresholds=(0.1, 0.25)).grid(), [0.1, 0.25])


def test_a_fixed_threshold_joins_the_grid() -> None:
    protocol = Protocol(threshold=0.1234)
    assert len(protocol.grid()) == 1001
    assert protocol.grid()[protocol.threshold_index(0.1234)] == 0.1234
    assert len(Protocol(threshold=0.15).grid()) == 1000
    with pytest.raises(ValueError, match="0.1234"):
        Protocol().threshold_index(0.1234)


def test_presets_are_those_of_the_papers() -> None:
    presets = {name: load_protocol(name) for name in protocol_names()}
    assert presets["choe2020"] == Protocol(name="choe2020")
    assert presets["choe2020_v2"] == Protocol(name="choe2020_v2", component="any")
    assert (presets["zhou2016"].threshold, presets["selvaraju2017"].threshold) == (0.2, 0.15)
    assert replace(presets["selvaraju2017"], threshold=0.2, name="zhou2016") == presets["zhou2016"]
    gao = presets["gao2021"]
    assert (gao.box_convention, gao.empty_box, gao.threshold) == ("half_open", (0, 0, 1, 1), 0.1)
    assert (gao.iou_comparison, gao.topk_iou_comparison) == (">=", ">")
    assert (presets["exact"].levels, presets["exact"].iou_convention) == (None, "continuous")


@pytest.mark.parametrize("path", sorted((conf_dir() / "protocol").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_says_where_it_goes_and_how_it_is_chosen(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# @package protocols.{path.stem}"
    assert lines[1].startswith(f"# 'protocol=[{path.stem}]'")
    assert "Reproduces" in path.read_text(encoding="utf-8") or path.stem in ("exact", "all")


NAN = float("nan")
REFUSED: dict[str, list[object]] = {
    "size": [(224,), "224", (0, 5), (224.5, 224)],
    "view": ["crop"],
    "view_share": [0],
    "interpolation": ["cubic"],
    "normalization": ["softmax"],
    "normalization_percentiles": [(0.9, 0.1), (0.1, 1.5)],
    "levels": [1, True],
    "cut_of": [0, "mean"],
    "pixel_comparison": ["<"],
    "connectivity": [6],
    "component": ["all"],
    "holes": ["yes"],
    "box_convention": ["xywh"],
    "empty_box": [(0.0, 0.0, 1.0), (3.0, 0.0, 1.0, 1.0)],
    "truth_clipped": [1, "all"],
    "truth_integers": [True],
    "iou_clamped": [1],
    "iou_thresholds": [(), (0.5, 0.3), (0.5, 1.5)],
    "thresholds": [(), "all", 0, (0.2, 0.1), (0.2, 1.0), (0.2, NAN)],
    "threshold": [1.0, -0.1, "0.2", {"cub": 1.0}],
    "mask_size": [None],
    "pxap_bin": [0],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in REFUSED.items() for value in values])
def test_what_is_refused_is_named_with_its_value(field: str, value: object) -> None:
    with pytest.raises(ValueError) as caught:
        Protocol.from_mapping({field: value})
    assert field in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": None, "view": "square_crop"},
        {"size": "heatmap", "view": "short_side"},
        {"size": (224, 200), "view": "short_side_crop"},
        {"cut_of": 90.0, "thresholds": "levels"},
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError) as caught:
        Protocol.from_mapping(fields)
    assert all(name in str(caught.value) for name in fields)


def test_values_by_dataset_are_chosen_once_and_case_does_not_matter() -> None:
    protocol = Protocol(threshold={"CUB": 0.15, "ilsvrc": 0.5}, thresholds={"cub": [0.1, 0.15], "default": 0.1})
    assert protocol.by_dataset == ("thresholds", "threshold") and hash(protocol)
    assert Protocol.from_mapping(asdict(protocol)) == protocol
    cub = protocol.for_dataset("Cub")
    assert (cub.threshold, cub.grid().tolist(), cub.by_dataset) == (0.15, [0.1, 0.15], ())
    assert protocol.for_dataset("shapes").threshold is None and len(protocol.grid()) == 10
    assert cub.for_dataset("ilsvrc") is cub
    assert replace(protocol, threshold=0.3).for_dataset("cub").threshold == 0.3


def test_a_fingerprint_is_of_what_differs_from_the_defaults() -> None:
    released = {"choe2020": "f8aeebb9", "choe2020_v2": "dcf80d0d", "exact": "d47876e6", "selvaraju2017": "3a2fc53f"}
    assert {name: load_protocol(name).fingerprint() for name in released} == released
    assert Protocol(name="mine", truth_clipped=False).fingerprint() == Protocol().fingerprint()
    assert replace(load_protocol("choe2020_v2"), truths="first").fingerprint() != released["choe2020_v2"]


def test_protocols_that_differ_only_in_what_is_read_from_sweeps_share_them() -> None:
    shared = {
        load_protocol(name).box_rules() for name in ("choe2020", "choe2020_v2", "zhu2022_dawsol", "zhu2022_bagcams")
    }
    assert len(shared) == 1
    assert load_protocol("zhou2016").box_rules() == load_protocol("selvaraju2017").box_rules()
    assert Protocol(threshold=0.1234).box_rules() != Protocol().box_rules() == Protocol(threshold=0.5).box_rules()
    assert load_protocol("exact").map_rules() == replace(Protocol(), size=None, interpolation="bilinear")


def test_unknown_fields_and_presets_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="treshold.*threshold"):
        Protocol.from_mapping({"treshold": 0.2}, name="mine")
    with pytest.raises(ValueError, match="cho2020.*choe2020"):
        load_protocol("cho2020")


def test_rules_may_be_given_by_name_as_a_file_or_as_they_are() -> None:
    rules, path = load_protocol("exact"), conf_dir() / "protocol" / "exact.yaml"
    assert load_protocol(rules) is rules and load_protocol(path) == rules
    asked = ("exact", path, str(path), rules)
    ious = [sweep_thresholds(np.eye(4), [0, 0, 2, 3], protocol).iou_largest for protocol in asked]
    assert all((one == ious[0]).all() for one in ious)


def test_a_file_of_ones_own_builds_on_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [zhou2016@_here_, _self_]\nthreshold: 0.3\nsize: [64, 64]\n")
    assert load_protocol(path) == replace(load_protocol("zhou2016"), name="mine", threshold=0.3, size=(64, 64))
    (tmp_path / "next.yaml").write_text("defaults: [mine@_here_]\nlevels: 16\n")
    assert load_protocol(tmp_path / "next.yaml").threshold == 0.3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: [zhou2016]", "zhou2016@_here_"),
        ("- 1", "mine.yaml"),
        ("a: [", "mine.yaml"),
        ("levels: 0", "levels = 0"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_protocol(path)
    with pytest.raises(ValueError, match="missing.yaml"):
        load_protocol(tmp_path / "missing.yaml")
