"""The ILSVRC-2012 ids: complete, sorted, and in step with torchvision's names."""

from torchvision.models import ResNet18_Weights

from wsol.datasets.imagenet import imagenet_wnids


def test_thousand_sorted_ids():
    ids = imagenet_wnids()
    assert len(set(ids)) == len(ids) == 1000
    assert list(ids) == sorted(ids)
    assert all(len(key) == 9 and key[0] == "n" and key[1:].isdecimal() for key in ids)


def test_ids_are_in_the_order_of_torchvisions_names():
    # Facts of WordNet 3.0 from all over the range; one slipped line would shift all behind it.
    known = {
        "n01440764": "tench",
        "n01443537": "goldfish",
        "n01882714": "koala",
        "n02123045": "tabby",
        "n02129165": "lion",
        "n02504458": "African elephant",
        "n02917067": "bullet train",
        "n04146614": "school bus",
        "n15075141": "toilet tissue",
    }
    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert {key: names[imagenet_wnids().index(key)] for key in known} == known
