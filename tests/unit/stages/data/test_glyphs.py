from bonsai.stages.data.glyphs import CLASSES, FACES, UNSEEN, load_glyphs
from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION

SMALL = {"train": 124, "validation": 62, "test": 186}


def test_the_classes_are_balanced_in_every_part() -> None:
    loaded = load_glyphs(**SMALL)
    assert len(CLASSES) == 62
    assert loaded.images.shape == (372, 1, 32, 32)
    for part, count in ((TRAIN, 2), (VALIDATION, 1), (TEST, 3)):
        assert loaded.labels[loaded.parts == part].bincount().tolist() == [count] * 62


def test_some_faces_of_the_test_are_not_seen_in_training() -> None:
    assert set(UNSEEN) < set(FACES)
    assert len(FACES) == 21
