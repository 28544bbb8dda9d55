"""Networks of timm and torchvision by name."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from bonsai.pipeline.cli.listing import describe_all
from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.pixels import to_input
from bonsai.stages.networks import timm_models, torchvision_models
from bonsai.stages.networks.config import GivenWeights, ModelConfig
from bonsai.stages.networks.factories import of_library
from bonsai.stages.networks.libraries import preprocess_of
from bonsai.stages.networks.matching import match_weights
from bonsai.stages.networks.registry import build_network
from bonsai.stages.networks.weights_files import read_weights
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.surgery import cut

SHAPE = (3, 32, 32)
PRETRAINED = GivenWeights(kind="pretrained")


@pytest.mark.parametrize("name", ["timm/mobilenetv3_small_050", "timm/mobilenetv3_small_050.lamb_in1k", "torchvision/mobilenet_v3_small"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_is_built_for_the_channels_and_classes_of_the_data(name: str, channels: int) -> None:
    network = build_network(ModelConfig(name=name), (channels, 32, 32), 7).eval()
    assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 7)


def test_a_network_for_segmentation_has_one_output_and_no_weights_of_its_backbone() -> None:
    network = build_network(ModelConfig(name="torchvision/lraspp_mobilenet_v3_large"), SHAPE, 4).eval()
    assert {name: tuple(value.shape) for name, value in network(torch.zeros(1, *SHAPE)).items()} == {"out": (1, 4, 32, 32)}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("timm/mobilenetv3_smal_050", "timm/mobilenetv3_small_050"),
        ("timm/resnet_18", "timm/resnet18"),
        ("torchvision/resnet-18", "torchvision/resnet18"),
        ("torchvision/lraspp_mobilenetv3_large", "torchvision/lraspp_mobilenet_v3_large"),
    ],
)
def test_a_wrong_name_is_told_with_those_near_it(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"has no network of this name\n  given:   {name}\n  allowed: one of \d+ names, such as ") as refused:
        build_network(ModelConfig(name=name), SHAPE, 10)
    assert near in str(refused.value)


def test_a_network_of_torchvision_for_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="torchvision has no network of this name"):
        build_network(ModelConfig(name="torchvision/fasterrcnn_resnet50_fpn"), SHAPE, 10)


def test_a_name_of_no_list_is_told_with_the_forms_of_names() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no model of this name.*timm/NAME, torchvision/NAME, package\.module:attribute"):
        build_network(ModelConfig(name="mobilenetv3"), SHAPE, 10)


def test_the_list_of_models_says_how_to_name_the_others() -> None:
    names = dict(describe_all("models"))
    assert {"timm/NAME", "torchvision/NAME", "package.module:factory"} <= names.keys()
    assert len(names) < 20


def test_the_librarys_version_counts() -> None:
    assert ModelConfig(name="timm/resnet18").identity().endswith(f"timm {timm_models.timm.__version__}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/mobilenetv3_small_050", ((224, 224), 0.485, "crop", 0.875, "bicubic")),
        ("torchvision/mobilenet_v3_small", ((224, 224), 0.485, "crop", 224 / 256, "bilinear")),
        ("mobilenet_v3_small", ((224, 224), 0.485, "crop", 224 / 256, "bilinear")),
        ("torchvision/lraspp_mobilenet_v3_large", ((520, 520), 0.485, "stretch", 1.0, "bilinear")),
        ("torchvision/googlenet", ((224, 224), 0.5, "crop", 224 / 256, "bilinear")),
    ],
)
def test_how_a_librarys_weights_want_images_is_known(name: str, expected: tuple[Any, ...]) -> None:
    found = preprocess_of(ModelConfig(name=name))
    assert found is not None
    assert (found.size, found.mean[0], found.resize, found.crop, found.interpolation) == expected


@pytest.mark.parametrize("name", torchvision_models.TRANSFORMING)
def test_images_are_normalised_as_the_network_itself_would_change_them(name: str) -> None:
    options = {"transform_input": True, "init_weights": False}
    network = build_network(ModelConfig(name=f"torchvision/{name}", options=options), SHAPE, 7)
    changing, plain = (preprocess_of(ModelConfig(name=f"torchvision/{name}", options=given)) for given in (options, {}))
    assert changing is not None
    assert plain is not None
    assert changing.mean == (0.485, 0.456, 0.406)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    given, wanted = (torch.from_numpy(to_input(pixels, how.model_copy(update={"size": (4, 5)}))) for how in (changing, plain))
    changed = network._transform_input(given[None])[0]  # type: ignore[operator]  # torchvision's own method
    torch.testing.assert_close(changed, wanted)
    assert not torch.allclose(given, wanted, atol=0.1)


def test_all_networks_whose_weights_change_their_inputs_are_known() -> None:
    builders = {name: models.get_model_builder(name) for name in models.list_models(module=models)}
    assert {name for name, builder in builders.items() if "transform_input" in builder.__wrapped__.__wrapped__.__code__.co_consts} == set(
        torchvision_models.TRANSFORMING
    )


def test_a_network_of_no_library_has_no_preprocessing_of_its_own() -> None:
    assert of_library("resnet8") is None
    assert preprocess_of(ModelConfig(name="resnet8")) is None


def test_pretrained_weights_are_matched_like_a_files(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelConfig(name="timm/mobilenetv3_small_050", weights="pretrained")
    library = build_network(ModelConfig(name=model.name, seed=1), SHAPE, 1000)
    monkeypatch.setattr(timm_models, "pretrained", lambda _name: library.state_dict())
    network = build_network(model, SHAPE, 7)
    matched = match_weights(network, read_weights(PRETRAINED, model).tensors, 7)
    assert matched.fresh == ("classifier",)
    assert torch.equal(matched.tensors["conv_stem.weight"], library.state_dict()["conv_stem.weight"])


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
def test_without_a_network_pretrained_weights_are_an_error_that_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_arguments: Any, **_options: Any) -> nn.Module:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(timm_models.timm, "create_model", unreachable)
    monkeypatch.setattr(torchvision_models.models, "get_model_weights", unreachable)
    with pytest.raises(ConfigError, match=rf"model\.weights: the pretrained weights of '{name}' cannot be had") as refused:
        read_weights(PRETRAINED, ModelConfig(name=name, weights="pretrained"))
    assert "Network is unreachable" in str(refused.value)
    assert "run it once where there is a network" in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/mobilenetv3_small_050", "torchvision/mobilenet_v3_small"])
def test_a_librarys_network_is_inspected_and_cut(name: str) -> None:
    recipe = load_recipe("resnet-edge").model_copy(update={"model": ModelConfig(name=name)})
    found = inspect_network(recipe, SHAPE, 7)
    network = build_network(recipe.model, SHAPE, 7).eval()
    kept = {group.name: tuple(range(-(-group.width // 2))) for group in found.groups}
    before = sum(parameter.numel() for parameter in network.parameters())
    cut(network, find_groups(network, SHAPE), kept)
    assert network(torch.zeros(2, *SHAPE)).shape == (2, 7)
    assert sum(parameter.numel() for parameter in network.parameters()) < before / 2
