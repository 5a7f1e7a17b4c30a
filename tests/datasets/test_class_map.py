"""Classes of a dataset meet the right logits, and whatever is doubtful is refused by name."""

import json

import numpy as np
import pytest
from torchvision.models import ResNet18_Weights

from wsol.datasets.class_map import map_classes
from wsol.datasets.imagenet import imagenet_wnids
from wsol.errors import UserError

NAMES = tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
IDS = imagenet_wnids()


def test_ids_come_first_and_order_does_not_matter():
    found = map_classes(["school bus", "wrong name"], ["n04146614", "n01443537"], NAMES, IDS, 1000)
    assert found.how == "id"
    assert found.to_model.tolist() == [IDS.index("n04146614"), 1] == [779, 1]
    assert found.to_model.dtype == np.int64
    assert found.present.tolist() == [1, 779]
    assert found.notes == ("2 of 1000 logits stand for classes of the dataset",)


def test_names_when_ids_are_missing_or_say_nothing():
    classes = ["tabby, tabby cat", "AFRICAN_ELEPHANT, Loxodonta africana", "lion"]
    for ids in (None, classes, ["0", "1", "2"]):
        found = map_classes(classes, ids, NAMES, IDS, 1000)
        assert found.how == "name"
        assert [NAMES[i] for i in found.to_model] == ["tabby", "African elephant", "lion"]


def test_any_synonym_of_either_side_matches():
    assert map_classes(["bear cat"], None, ["dog", "lesser panda, red panda, bear cat"], None, 2).to_model.tolist() == [
        1
    ]


def test_folder_names_that_are_ids_match_ids():
    folders = ("n02129165", "n01443537")
    assert map_classes(["goldfish"], ["n01443537"], folders, None, 2).to_model.tolist() == [1]
    assert map_classes(folders, folders, NAMES, IDS, 1000).to_model.tolist() == [291, 1]


def test_exact_case_decides_between_dog_and_garment():
    cardigans = [i for i, name in enumerate(NAMES) if name.casefold() == "cardigan"]
    assert [NAMES[i] for i in cardigans] == ["Cardigan", "cardigan"]
    assert map_classes(["cardigan", "Cardigan"], None, NAMES, None, 1000).to_model.tolist() == cardigans[::-1]
    assert map_classes(["Cardigan, Cardigan Welsh corgi"], None, NAMES, None, 1000).to_model.tolist() == cardigans[:1]
    with pytest.raises(UserError, match=r"'CARDIGAN' fits several logits .*264: Cardigan, 474: cardigan"):
        map_classes(["CARDIGAN"], None, NAMES, None, 1000)


def test_whole_list_as_one_name():
    model = ["maillot", "maillot, tank suit"]
    assert map_classes(["maillot, tank suit", "maillot"], None, model, None, 2).to_model.tolist() == [1, 0]


def test_two_classes_on_one_logit_are_refused():
    with pytest.raises(UserError, match=r"'crane' and 'Crane' \(logit 0\)"):
        map_classes(["crane", "Crane"], None, ["CRANE", "other"], None, 2)


def test_all_ids_of_imagenet():
    order = np.random.default_rng(0).permutation(1000)
    found = map_classes([NAMES[i] for i in order], [IDS[i] for i in order], NAMES, IDS, 1000)
    assert (found.to_model == order).all() and found.notes == ()


def test_position_only_when_said():
    with pytest.raises(UserError, match=r"dataset.class_map=position"):
        map_classes(["a", "b"], None, None, None, 2)
    found = map_classes(["a", "b"], None, ["b", "a"], None, 2, how="position")
    assert (found.to_model.tolist(), found.how) == ([0, 1], "position")
    with pytest.raises(UserError, match=r"3 classes, the classifier only 2"):
        map_classes(["a", "b", "c"], None, None, None, 2, how="position")


def test_missing_classes_are_named_with_the_nearest():
    with pytest.raises(UserError, match=r"4 of the dataset's 5 .*'goldfisch' .*nearest are goldfish.*and 1 more"):
        map_classes(["lion", "goldfisch", "x1", "x2", "x3"], None, NAMES, IDS, 1000)
    with pytest.raises(UserError, match=r"'other' \(id n00000000\)"):
        map_classes(["lion", "other"], ["n02129165", "n00000000"], NAMES, IDS, 1000, how="id")
    with pytest.raises(UserError, match=r"1 of the dataset's 2 .* by id"):
        map_classes(["not its name", "other"], ["n02129165", "n00000000"], NAMES, IDS, 1000)


def test_id_demanded_without_ids():
    with pytest.raises(UserError, match=r"the dataset has no class ids"):
        map_classes(["lion"], None, NAMES, IDS, 1000, how="id")
    with pytest.raises(UserError, match=r"the classifier's class ids are not known"):
        map_classes(["lion"], ["n02129165"], NAMES, None, 1000, how="id")


def test_names_and_logits_must_agree():
    with pytest.raises(UserError, match=r"5 logits, but 2 classes"):
        map_classes(["a"], None, ["a", "b"], None, 5)


@pytest.fixture
def write(tmp_path):
    def to(name, text):
        (tmp_path / name).write_text(text, "utf-8")
        return tmp_path / name

    return to


def test_files(write):
    csv = write("map.csv", 'dataset class,model class\nn1,3\n"dog, hound",goldfish\n\nbird,n02129165\n')
    found = map_classes(["cat", "dog, hound", "bird"], ["n1", "n2", "n3"], NAMES, IDS, 1000, how=str(csv))
    assert found.to_model.tolist() == [3, 1, 291]
    assert found.how == "file map.csv"
    for content in ({"cat": 4, "dog": "0"}, [["dog", 0], ["cat", 4]]):
        path = write("map.json", json.dumps(content))
        assert map_classes(["cat", "dog"], None, None, None, 5, how=path).to_model.tolist() == [4, 0]


def test_a_file_may_let_classes_share_a_logit(write):
    found = map_classes(["a", "b"], None, None, None, 3, how=write("m.csv", "a,1\nb,1\n"))
    assert found.to_model.tolist() == [1, 1]
    assert found.notes[1] == "classes that share a logit: 'a' and 'b' (logit 1)"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "cat,0\ncow,1\n", r"m.csv, line 2: the dataset has no class 'cow'"),
        ("m.csv", "cat,0\ncat,1\n", r"m.csv, line 2: class 'cat' was given a logit already"),
        ("m.csv", "cat,0\nn2,1\ndog,1\n", r"m.csv, line 3: class 'dog' was given a logit already"),
        ("m.csv", "cat,0\n", r"m.csv gives no logit for 'dog'"),
        ("m.csv", "cat,0\ndog,5\n", r"line 2: logit 5 does not exist: the classifier has 0 to 4"),
        ("m.csv", "cat,0\ndog,-1\n", r"line 2: the classifier's class names are not known, so '-1'"),
        ("m.csv", "cat,0,1\n", r"line 1: 'cat,0,1' is not"),
        ("m.csv", "cat\n", r"line 1: 'cat' is not"),
        ("m.json", '{"cat": 0, "cat": 1}', r"class 'cat': class 'cat' was given a logit already"),
        ("m.json", '{"cat": 0, "dog": 1.5}', r"is no pair of class and logit"),
        ("m.json", "7", r"7 is no pair"),
        ("m.json", "{", r"is no JSON"),
    ],
)
def test_wrong_rows_are_named(write, name, text, message):
    with pytest.raises(UserError, match=message):
        map_classes(["cat", "dog"], ["n1", "n2"], None, None, 5, how=write(name, text))


def test_wrong_names_and_files(write, tmp_path):
    with pytest.raises(UserError, match=r"no such file: pass id, name, position"):
        map_classes(["cat"], None, None, None, 5, how="nmae")
    (tmp_path / "latin.csv").write_bytes(b"cat\xff,0")
    with pytest.raises(UserError, match=r"can't be read"):
        map_classes(["cat"], None, None, None, 5, how=tmp_path / "latin.csv")
    with pytest.raises(UserError, match=r"line 1: 'liom' .*nearest are lion"):
        map_classes(["cat"], None, NAMES, IDS, 1000, how=write("m.csv", "cat,liom"))
