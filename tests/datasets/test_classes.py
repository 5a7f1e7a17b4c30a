"""Classes meet the right logits, doubtful ones are refused by name; ranks agree with a plain sort."""

import json

import numpy as np
import pytest
from torchvision.models import ResNet18_Weights

from wsol.datasets.classes import (
    ClassMap,
    allowed_logits,
    find_logit,
    map_classes,
    rank_of_true,
    top_classes,
)
from wsol.errors import UserError
from wsol.io import imagenet_classes

NAMES, IDS = tuple(imagenet_classes().values()), tuple(imagenet_classes())
LION, GOLDFISH = "n02129165", "n01443537"


def test_ids_are_in_the_order_of_the_names():
    assert tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"]) == NAMES and list(IDS) == sorted(IDS)
    # Facts of WordNet 3.0 from all over the range; one slipped line would shift all behind it.
    facts = {
        "n01440764": "tench", "n01443537": "goldfish", "n01882714": "koala", "n02123045": "tabby", "n02129165": "lion",
        "n02504458": "African elephant", "n02917067": "bullet train", "n04146614": "school bus",
        "n15075141": "toilet tissue",
    }  # fmt: skip
    assert {key: NAMES[IDS.index(key)] for key in facts} == facts


def test_ids_come_first_and_order_does_not_matter():
    mapped = map_classes(["school bus", "wrong name"], ["n04146614", GOLDFISH], NAMES, IDS, 1000)
    assert mapped.how == "id"
    assert mapped.to_model.tolist() == [779, 1]
    assert mapped.to_model.dtype == np.int64
    assert mapped.present.tolist() == [1, 779]
    assert "2 of 1000" in mapped.notes[0]


def test_all_ids_of_imagenet():
    order = np.random.default_rng(0).permutation(1000)
    mapped = map_classes([NAMES[i] for i in order], [IDS[i] for i in order], NAMES, IDS, 1000)
    assert (mapped.to_model == order).all() and mapped.notes == ()


def test_names_when_ids_are_missing_or_say_nothing():
    classes = ["tabby, tabby cat", "AFRICAN_ELEPHANT, Loxodonta africana", "lion"]
    for ids in (None, classes, ["0", "1", "2"]):
        mapped = map_classes(classes, ids, NAMES, IDS, 1000)
        assert mapped.how == "name"
        assert [NAMES[i] for i in mapped.to_model] == ["tabby", "African elephant", "lion"]


def test_folder_names_that_are_ids_match_ids():
    folders = (LION, GOLDFISH)
    assert map_classes(["goldfish"], [GOLDFISH], folders, None, 2).to_model.tolist() == [1]
    assert map_classes(folders, folders, NAMES, IDS, 1000).to_model.tolist() == [291, 1]


@pytest.mark.parametrize(
    ("classes", "names", "logits"),
    [
        (["bear cat"], ["dog", "lesser panda, red panda, bear cat"], [1]),  # any synonym
        (["maillot, tank suit", "maillot"], ["maillot", "maillot, tank suit"], [1, 0]),  # the whole list is a name
        (["cardigan", "Cardigan"], ["Cardigan", "cardigan"], [1, 0]),  # the case decides between dog and garment
        (["Cardigan, Cardigan Welsh corgi"], ["cardigan", "Cardigan"], [1]),
        (["crane, bird"], ["machine, crane", "crane"], [1]),  # the first synonym decides
    ],
)
def test_which_name_is_meant(classes, names, logits):
    assert map_classes(classes, None, names, None, 2).to_model.tolist() == logits
    by_position = map_classes(classes, None, names, None, 2, how="position")
    assert (by_position.to_model.tolist(), by_position.how) == ([*range(len(classes))], "position")


@pytest.mark.parametrize(
    ("classes", "ids", "names", "model_ids", "how", "culprit"),
    [
        (["CARDIGAN"], None, ["Cardigan", "cardigan"], None, None, "'CARDIGAN' .*0: Cardigan, 1: cardigan"),
        (["crane", "Crane"], None, ["CRANE", "other"], None, None, r"'crane' and 'Crane' \(logit 0\)"),
        (["a", "b"], None, None, None, None, "position"),
        (["a", "b", "c"], None, ["a", "b"], None, "position", "3 classes"),
        (["lion", "goldfisch", "x1", "x2", "x3"], None, NAMES, IDS, None, "4 of .* 5 .*'goldfisch' .*goldfish"),
        (["lion", "other"], [LION, "n00000000"], NAMES, IDS, "id", r"'other' \(id n00000000\)"),
        (["not its name", "other"], [LION, "n00000000"], NAMES, IDS, None, "'other' .*n00000000"),
        (["lion"], None, NAMES, IDS, "id", "'lion'"),
        (["lion"], [LION], NAMES, None, "id", LION),
        (["cat"], None, ["cat", "dog", "cow"], None, "nmae", "nmae"),
    ],
)
def test_doubtful_classes_are_refused(classes, ids, names, model_ids, how, culprit):
    with pytest.raises(UserError, match=culprit):
        map_classes(classes, ids, names, model_ids, len(names or "ab"), how=how)


@pytest.mark.parametrize(("text", "logit"), [("1", 1), (LION, 291), ("LION, king", 291)])
def test_a_logit_is_meant_by_index_id_or_name(text, logit):
    assert find_logit(text, NAMES, IDS, 1000, "target") == logit


@pytest.fixture
def write(tmp_path):
    def to(name, text):
        (tmp_path / name).write_text(text, "utf-8")
        return tmp_path / name

    return to


def test_files(write):
    csv = write("map.csv", f'dataset class,model class\nn1,3\n"dog, hound",goldfish\n\nbird,{LION}\n')
    mapped = map_classes(["cat", "dog, hound", "bird"], ["n1", "n2", "n3"], NAMES, IDS, 1000, how=str(csv))
    assert mapped.to_model.tolist() == [3, 1, 291]
    assert mapped.how == "file map.csv"
    for content in ({"cat": 4, "dog": "0"}, [["dog", 0], ["cat", 4]]):
        path = write("map.json", json.dumps(content))
        assert map_classes(["cat", "dog"], None, None, None, 5, how=path).to_model.tolist() == [4, 0]


def test_a_file_may_let_classes_share_a_logit(write):
    mapped = map_classes(["a", "b"], None, None, None, 3, how=write("m.csv", "a,1\nb,1\n"))
    assert mapped.to_model.tolist() == [1, 1]
    assert "'a' and 'b' (logit 1)" in mapped.notes[1]


@pytest.mark.parametrize(
    ("name", "text", "culprit"),
    [
        ("m.csv", "cat,0\ncow,1\n", "m.csv, row 2: .*'cow'"), ("m.csv", "cat,0\ncat,1\n", "m.csv, row 2: .*'cat'"),
        ("m.csv", "cat,0\nn2,1\ndog,1\n", "m.csv, row 3: .*'dog'"), ("m.csv", "cat,0\n", "m.csv .*'dog'"),
        ("m.csv", "cat,0\ndog,5\n", "row 2: '5'"), ("m.csv", "cat,0,1\n", "row 1: .*'cat', '0', '1'"),
        ("m.csv", "cat,\n", "row 1: .*'cat'"), ("m.csv", "cat,liom\n", "row 1: 'liom'"),
        ("m.json", '{"cat": 0, "cat": 1}', "'cat'"), ("m.json", '{"cat": 0, "dog": 1.5}', "row 2: '1.5'"),
        ("m.json", '{"cat": true, "dog": 1}', "row 1: 'True'"), ("m.json", "{", "m.json"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(write, name, text, culprit):
    with pytest.raises(UserError, match=culprit):
        map_classes(["cat", "dog"], ["n1", "n2"], None, None, 5, how=write(name, text))


@pytest.mark.parametrize("allowed", [None, np.array([9, 1, 4, 6])])
def test_ranks_are_those_of_a_stable_sort(allowed):
    random = np.random.default_rng(0)
    # Few different values, so that most rows have ties.
    logits = random.integers(0, 4, (200, 10)).astype(np.float32)
    targets = random.choice(np.arange(10) if allowed is None else allowed, 200)
    competing = range(10) if allowed is None else sorted(allowed)
    orders = [sorted(competing, key=lambda index: -row[index]) for row in logits]
    ranks = [order.index(target) for order, target in zip(orders, targets, strict=True)]
    assert rank_of_true(logits, targets, allowed).tolist() == ranks
    indices, probabilities = top_classes(logits, 5, allowed)
    assert indices.tolist() == [order[:5] for order in orders]
    assert probabilities.shape == indices.shape
    if allowed is not None:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_probabilities_are_a_softmax():
    indices, probabilities = top_classes([[1000.0, 1001.0, 0.0]], k=2)
    assert indices.tolist() == [[1, 0]]
    np.testing.assert_allclose(probabilities, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e)]])


def test_present_classes():
    mapped = ClassMap(np.array([7, 2]), "name")
    assert allowed_logits(mapped, "all") is None
    assert allowed_logits(mapped, "present").tolist() == [2, 7]
    with pytest.raises(UserError, match="some"):
        allowed_logits(mapped, "some")


@pytest.mark.parametrize(("logits", "row"), [([[1, np.nan]], 0), ([[1, 2], [np.inf, 0]], 1)])
def test_logits_that_are_not_finite_are_refused(logits, row):
    for function in (top_classes, lambda values: rank_of_true(values, [0] * len(values))):
        with pytest.raises(UserError, match=f"row {row}"):
            function(logits)
