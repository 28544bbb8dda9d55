import torch

from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.glyphs import CLASSES, FACES, UNSEEN, load_glyphs
from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store

SMALL = {"train": 124, "validation": 62, "test": 186}


def test_the_set_is_the_same_at_every_rendering_and_another_at_another_seed() -> None:
    first, again, other = load_glyphs(**SMALL), load_glyphs(**SMALL), load_glyphs(**SMALL, seed=1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_an_image_does_not_depend_on_how_many_there_are() -> None:
    few, many = load_glyphs(**SMALL), load_glyphs(train=248, validation=62, test=186)
    assert torch.equal(few.images[:124], many.images[:124])


def test_the_classes_are_balanced_in_every_part() -> None:
    loaded = load_glyphs(**SMALL)
    assert len(CLASSES) == 62
    assert loaded.images.shape == (372, 1, 32, 32)
    for part, count in ((TRAIN, 2), (VALIDATION, 1), (TEST, 3)):
        assert loaded.labels[loaded.parts == part].bincount().tolist() == [count] * 62


def test_images_are_neither_empty_nor_flat() -> None:
    assert float(load_glyphs(**SMALL).images.float().flatten(1).std(1).min()) > 4


def test_some_faces_of_the_test_are_not_seen_in_training() -> None:
    assert set(UNSEEN) < set(FACES)
    assert len(FACES) == 21


def test_the_sets_own_split_is_kept(store: Store) -> None:
    made = store.run(prepare, data=DataConfig(name="glyphs", options=SMALL), content="")
    assert made.sizes == SMALL
