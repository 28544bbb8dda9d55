"""The drawn scenes: one drawing for masks and tags, of which colour alone tells nothing."""

import numpy as np
import pytest
import torch

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.loading import load_data
from bonsai.stages.data.scenes import GROUND, KINDS, VISIBLE, load_scenes, tags_of

SMALL = {"train": 30, "validation": 10, "test": 10}


@pytest.mark.parametrize("size", [(36, 48), (20, 31)])
def test_images_are_rgb_of_any_size_with_a_class_for_each_pixel(size: tuple[int, int]) -> None:
    loaded = load_scenes(**SMALL, height=size[0], width=size[1])
    assert loaded.images.shape == (50, 3, *size)
    assert loaded.labels.shape == (50, *size)
    assert loaded.classes == (GROUND, *KINDS)
    assert loaded.labels.unique().tolist() == list(range(7))


def test_tags_name_the_kinds_of_which_enough_is_to_be_seen() -> None:
    masks, tags = load_scenes(**SMALL), load_scenes(**SMALL, targets="tags")
    assert torch.equal(masks.images, tags.images)
    assert tags.classes == KINDS
    for mask, row in zip(masks.labels.numpy(), tags.labels.numpy(), strict=True):
        assert row.tolist() == [float((mask == kind).sum() >= VISIBLE) for kind in range(1, 7)]


def test_a_hidden_kind_has_no_tag() -> None:
    mask = np.zeros((1, 6, 8), np.uint8)
    mask[0, :3, :4], mask[0, 3, :5] = 1, 2
    assert tags_of(mask).tolist() == [[1, 0, 0, 0, 0, 0]]


def test_every_kind_is_in_some_scenes_and_not_in_others() -> None:
    shares = load_scenes(**SMALL, targets="tags").labels.mean(0)
    assert float(shares.min()) > 0.2
    assert float(shares.max()) < 0.6


def test_colour_alone_does_not_tell_the_kind() -> None:
    loaded = load_scenes(train=200, validation=10, test=10)
    pixels = loaded.images.permute(0, 2, 3, 1).float()
    colours = torch.stack([pixels[loaded.labels == kind].mean(0) for kind in range(1, 7)])
    apart = torch.cdist(colours, colours)
    of_one_hue = torch.stack([apart[place, place + 1] for place in (0, 2, 4)])
    of_others = apart[torch.arange(6)[:, None] // 2 != torch.arange(6) // 2]
    assert 2 * float(of_one_hue.max()) < float(of_others.min())


def test_targets_that_are_not_known_are_refused() -> None:
    with pytest.raises(ConfigError, match="targets is masks or tags, not 'boxes'"):
        load_data(DataConfig(name="scenes", options={"targets": "boxes"}))
