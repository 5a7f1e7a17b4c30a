"""Protocols: what is refused and how it is said, presets, files that build upon each other."""

from dataclasses import replace
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
    assert set(presets) == {"choe2020", "choe2020_v2", "zhou2016", "selvaraju2017", "gao2021", "exact"}
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
    assert "Reproduces" in path.read_text(encoding="utf-8") or path.stem == "exact"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("size", (224,)),
        ("size", "224"),
        ("size", (0, 5)),
        ("size", (224.5, 224)),
        ("interpolation", "cubic"),
        ("normalization", "softmax"),
        ("levels", 1),
        ("levels", True),
        ("pixel_comparison", "<"),
        ("connectivity", 6),
        ("component", "all"),
        ("area", "box"),
        ("tie", "none"),
        ("holes", "yes"),
        ("box_convention", "xywh"),
        ("empty_box", (0.0, 0.0, 1.0)),
        ("empty_box", (3.0, 0.0, 1.0, 1.0)),
        ("truth_rounding", "round"),
        ("truth_clipped", 1),
        ("iou_convention", "giou"),
        ("iou_comparison", "=="),
        ("iou_thresholds", ()),
        ("iou_thresholds", (0.5, 0.3)),
        ("iou_thresholds", (0.5, 1.5)),
        ("thresholds", ()),
        ("thresholds", "all"),
        ("thresholds", 0),
        ("thresholds", (0.2, 0.1)),
        ("thresholds", (0.2, 1.0)),
        ("thresholds", (0.2, float("nan"))),
        ("threshold", 1.0),
        ("threshold", -0.1),
        ("threshold", "0.2"),
        ("mask_size", None),
        ("mask_interpolation", "bilinear"),
        ("pxap_bin", 0),
    ],
)
def test_what_is_refused_is_named_with_its_value(field: str, value: object) -> None:
    with pytest.raises(ValueError) as caught:
        Protocol.from_mapping({field: value})
    assert field in str(caught.value) and repr(value) in str(caught.value)


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="treshold.*threshold"):
        Protocol.from_mapping({"treshold": 0.2}, name="mine")


def test_an_unknown_preset_names_the_nearest() -> None:
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
