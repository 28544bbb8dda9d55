import pytest
import torch

from bonsai.stages.training.augmentation import make_augmentation, move_both, seeded
from bonsai.stages.training.config import AugmentConfig


def changed(image: torch.Tensor, seed: int, **config: float) -> torch.Tensor:
    augmentation = make_augmentation(AugmentConfig.model_validate(config))
    assert augmentation is not None
    with seeded(seed):
        return augmentation(image)


def test_there_is_none_where_nothing_is_to_change() -> None:
    assert make_augmentation(AugmentConfig()) is None


@pytest.mark.parametrize("config", [{"rotate": 20.0}, {"shift": 0.2}, {"zoom": 0.3}], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_an_image_is_moved_and_stays_an_image(config: dict[str, float], channels: int) -> None:
    image = torch.randint(1, 256, (channels, 12, 16), dtype=torch.uint8)
    moved = [changed(image, seed, **config) for seed in range(3)]
    assert all(one.shape == image.shape and one.dtype == torch.uint8 for one in moved)
    assert not torch.equal(moved[0], moved[1])
    assert torch.equal(moved[2], changed(image, 2, **config))


def test_a_shift_is_no_longer_than_asked_and_brings_in_black() -> None:
    image = torch.full((1, 20, 20), 255, dtype=torch.uint8)
    black = [int((changed(image, seed, shift=0.1)[0] == 0).all(0).sum()) for seed in range(40)]
    assert set(black) == {0, 1, 2}  # columns: a tenth of the side


def test_a_zoom_goes_both_ways() -> None:
    image = torch.zeros((1, 32, 32), dtype=torch.uint8)
    image[:, 8:24, 8:24] = 255
    areas = [float(changed(image, seed, zoom=0.25).float().mean()) / 255 for seed in range(20)]
    assert min(areas) < 0.25 * 0.75 < 0.25 * 1.3 < max(areas)


@pytest.mark.parametrize("config", [{"rotate": 20.0}, {"shift": 0.2}, {"zoom": 0.3}], ids=str)
def test_a_mask_moves_with_its_image_and_what_comes_in_does_not_count(config: dict[str, float]) -> None:
    augmentation = make_augmentation(AugmentConfig.model_validate(config))
    assert augmentation is not None
    mask = torch.zeros((24, 24), dtype=torch.uint8)
    mask[6:16, 4:12] = 1
    for seed in range(5):
        with seeded(seed):
            image, moved = move_both(augmentation, 50 + 200 * mask[None], mask)
        assert (type(image), type(moved), moved.shape, moved.dtype) == (torch.Tensor, torch.Tensor, mask.shape, torch.uint8)
        assert set(moved.unique().tolist()) <= {0, 1, 255}
        inside = moved != 255
        assert ((image[0] > 150) == (moved == 1))[inside].float().mean() > 0.95
        assert (image[0][~inside] < 150).all()
        with seeded(seed):
            assert torch.equal(augmentation(50 + 200 * mask[None]), image)  # the same change as without a mask


def test_random_numbers_of_others_go_on_as_if_none_had_been_drawn() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with seeded(7):
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected)
