from typing import Any

import pytest
import torch

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.augmentation import PRESETS, make_augmentation, require_augmentation, seeded
from bonsai.stages.training.config import AugmentConfig, TrainConfig, describe_augmentation


def spec_of(*shape: int) -> DataSpec:
    return DataSpec(shape, 3, Preprocess.of(shape))


def changed(image: torch.Tensor, seed: int, **config: float) -> torch.Tensor:
    augmentation = make_augmentation(AugmentConfig.model_validate(config), spec_of(*image.shape))
    assert augmentation is not None
    with seeded(seed):
        return augmentation.of_sample(image, 0)[0]


def test_there_is_none_where_nothing_is_to_change() -> None:
    assert make_augmentation(AugmentConfig(), spec_of(1, 8, 8)) is None
    assert make_augmentation((), spec_of(1, 8, 8)) is None


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
def test_a_mask_moves_as_its_image_would_without_it(config: dict[str, float]) -> None:
    spec, asked = spec_of(1, 24, 24), AugmentConfig.model_validate(config)
    alone, both = make_augmentation(asked, spec), make_augmentation(asked, spec, masks=True)
    assert alone is not None
    assert both is not None
    mask = torch.zeros((24, 24), dtype=torch.uint8)
    mask[6:16, 4:12] = 1
    for seed in range(5):
        with seeded(seed):
            image, moved = both.of_sample(50 + 200 * mask[None], mask)
        assert (type(image), type(moved), moved.shape, moved.dtype) == (torch.Tensor, torch.Tensor, mask.shape, torch.uint8)
        assert set(moved.unique().tolist()) <= {0, 1, 255}
        inside = moved != 255
        assert ((image[0] > 150) == (moved == 1))[inside].float().mean() > 0.95
        assert (image[0][~inside] < 150).all()
        with seeded(seed):
            assert torch.equal(alone.of_sample(50 + 200 * mask[None], 0)[0], image)


def test_random_numbers_of_others_go_on_as_if_none_had_been_drawn() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with seeded(7):
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected)


def augment(*asked: Any) -> Any:
    return TrainConfig.model_validate({"augment": list(asked)}).augment


def test_a_list_of_names_and_arguments_is_what_is_done() -> None:
    mirrored = make_augmentation(augment({"RandomHorizontalFlip": {"p": 1}}, {"RandomAffine": {"degrees": [90, 90]}}), spec_of(1, 4, 4))
    assert mirrored is not None
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4)
    assert torch.equal(mirrored.of_sample(image, 0)[0], image.flip(2).rot90(3, (1, 2)))


def test_the_record_and_the_list_that_says_the_same_give_the_same_bits() -> None:
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    said = augment({"RandomAffine": {"degrees": 10, "translate": [0.1, 0.1], "scale": [0.9, 1.1], "interpolation": "bilinear"}})
    listed = make_augmentation(said, spec_of(3, 16, 16))
    assert listed is not None
    with seeded(3):
        assert torch.equal(listed.of_sample(image, 0)[0], changed(image, 3, rotate=10, shift=0.1, zoom=0.1))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 12, 20)], ids=str)
def test_every_preset_changes_images_and_keeps_their_shape(preset: str, shape: tuple[int, ...]) -> None:
    made = make_augmentation(augment(preset), spec_of(*shape))
    assert made is not None
    image = torch.randint(0, 256, shape, dtype=torch.uint8)
    with seeded(1):
        samples = [made.of_sample(image, 0)[0] for _ in range(4)]
        images, targets = made.of_batch(torch.stack([*samples[:2], 255 - image, image]), torch.tensor([0, 1, 2, 0]))
    assert all(sample.shape == image.shape and sample.dtype == torch.uint8 for sample in samples)
    assert images.shape == (4, *shape)
    assert targets.shape == ((4, 3) if preset in ("mixup", "cutmix") else (4,))


def test_one_preset_needs_no_list() -> None:
    assert TrainConfig.model_validate({"augment": "light"}).augment == ("light",)


def test_a_mask_moves_with_its_image_and_what_comes_in_does_not_count() -> None:
    made = make_augmentation(augment({"RandomAffine": {"degrees": 0, "translate": [0.3, 0.3]}}, "RandomHorizontalFlip"), spec_of(1, 8, 8), masks=True)
    assert made is not None
    mask = torch.arange(64, dtype=torch.uint8).reshape(8, 8) + 1
    for seed in range(5):
        with seeded(seed):
            image, moved = made.of_sample(mask[None].clone(), mask)
        assert type(image) is type(moved) is torch.Tensor
        inside = moved != 255
        assert torch.equal(image[0][inside], moved[inside])
        assert not image[0][~inside].any()


def test_mixed_targets_are_shares_of_two_classes() -> None:
    made = make_augmentation(augment({"MixUp": {"alpha": 1.0}}), spec_of(1, 2, 2))
    assert made is not None
    with seeded(0):
        images, targets = made.of_batch(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 1, 2, 2), torch.tensor([0, 2]))
    torch.testing.assert_close(targets.sum(1), torch.ones(2))
    torch.testing.assert_close(images[:, 0, 0, 0], targets[:, 2])


def test_images_of_fractions_are_changed_too() -> None:
    spec = DataSpec((1, 8, 8), 3, Preprocess.model_validate({**Preprocess.of((1, 8, 8)).model_dump(), "scale": (-1, 1)}))
    made = make_augmentation(augment("light"), spec)
    assert made is not None
    assert made.of_sample(torch.rand(1, 8, 8), 0)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["RandomHorizontalFlop"], r"no transform of this name \(did you mean 'RandomHorizontalFlip'\?\).*allowed: the presets light, .*RandomAffine"),
        (["ligth"], r"did you mean 'light'"),
        (["ToTensor"], "no transform of this name"),
        ([{"RandomAffine": {"degree": 10}}], r"RandomAffine has no argument of this name \(did you mean 'degrees'\?\).*allowed: degrees, translate"),
        (["RandomAffine"], "RandomAffine does not take these arguments.*no arguments"),
        ([{"RandomAffine": {"degrees": 10, "interpolation": "cubic"}}], "does not take these arguments.*interpolation: cubic"),
        ([{"RandomHorizontalFlip": {}, "RandAugment": {}}], "more than one transform"),
        ([{"Pad": {"padding": 2}}], "change the shape"),
        ([{"RandomApply": {"transforms": ["Nothing"]}}], "no transform of this name"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_with_what_is(asked: list[Any], told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)^training.augment: .*{told}"):
        make_augmentation(augment(*asked), spec_of(3, 16, 16))


def test_what_does_not_fit_the_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)do not fit the samples.*\(2, 50\)"):
        make_augmentation(AugmentConfig(rotate=10), spec_of(2, 50))
    with pytest.raises(ConfigError, match="do not fit the samples"):
        make_augmentation(augment("randaugment"), spec_of(3, 16, 16), masks=True)


def test_batches_are_mixed_only_where_the_loss_takes_shares() -> None:
    require_augmentation(augment("mixup"), spec_of(3, 8, 8), "classification")
    with pytest.raises(ConfigError, match="batches of this task cannot be mixed"):
        require_augmentation(augment("mixup"), spec_of(3, 8, 8), "regression")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (AugmentConfig(), ""),
        (AugmentConfig(rotate=10, zoom=0.1), "rotate 10, zoom 0.1"),
        (augment("light", {"RandomAffine": {"degrees": 10}}, "RandomHorizontalFlip"), "light, RandomAffine (degrees 10), RandomHorizontalFlip"),
    ],
    ids=str,
)
def test_it_is_told_in_words(asked: Any, told: str) -> None:
    assert describe_augmentation(asked) == told
