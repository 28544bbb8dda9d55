"""Smaller images as a choice: the network at each size, and what is refused before anything is trained."""

from dataclasses import replace
from pathlib import Path

import pytest

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.device_timing import DeviceTimer
from bonsai.pipeline.run.inspecting import Network, inspect_network
from bonsai.pipeline.run.prospects import foresee
from bonsai.pipeline.run.resolutions import sizes_of, smaller_networks
from bonsai.pipeline.run.targets import ReadyTarget, prepare_target, untrained_network
from bonsai.profiles.budget import Budget, Point
from bonsai.profiles.errors import BudgetError, ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.registry import check_target
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.store.store import Store

TINY = Path(__file__).parents[3] / "integration" / "configs" / "tiny.yaml"
SHAPE = (1, 16, 16)


def recipe(*resolutions: int, **overrides: object) -> Recipe:
    return load_recipe(str(TINY), {"prune.resolutions": list(resolutions), **overrides})


def dataset(shape: tuple[int, ...] = SHAPE) -> Dataset:
    sizes = {"train": 64, "validation": 16, "test": 16}
    return Dataset(folder=Path(), name="d", preprocess=Preprocess.of(shape), classes=tuple("0123456789"), sizes=sizes, licence="own")


def elsewhere(budget: float = 0.5, **overrides: object) -> HardwareProfile:
    return load_profile("x86-avx512-vnni", {"budget.latency": budget, "target.precision": "fp32", **overrides})


@pytest.fixture(scope="module")
def network() -> Network:
    return inspect_network(recipe(), SHAPE, 10)


def networks(asked: Recipe, network: Network, data: Dataset, profile: HardwareProfile | None = None, *, compared: bool = False) -> tuple[Network, ...]:
    return smaller_networks(asked, data, network, [profile or elsewhere()], (), compared=compared)


def test_sizes_keep_the_proportions_and_the_full_one_is_no_smaller_one() -> None:
    assert sizes_of([8, 24, 16, 16], (3, 24, 36)) == [(16, 24), (8, 12)]
    assert sizes_of([9], (3, 30, 20)) == [(14, 9)]
    with pytest.raises(ConfigError, match=r"(?s)images are never made larger.*given: +48, 32.*at most 24"):
        sizes_of([48, 32, 16], (3, 24, 36))


def test_without_resolutions_nothing_is_inspected_again(network: Network) -> None:
    assert networks(recipe(), network, dataset((1, 512))) == ()


def test_each_size_has_the_same_groups_and_less_work(network: Network) -> None:
    found = networks(recipe(8, 12), network, dataset())
    assert [each.image_size for each in found] == [(12, 12), (8, 8)]
    assert all(each.groups == network.groups for each in found)
    places = [sum(each.operator.height * each.operator.width for each in one.operators) for one in (network, *found)]
    assert places == sorted(places, reverse=True) and len(set(places)) == 3


@pytest.mark.parametrize(
    ("overrides", "shape", "changes", "told"),
    [
        ({}, (1, 512), {}, "series have no resolution"),
        ({"task": "segmentation", "model": {"name": "unet", "options": {}}}, SHAPE, {}, "the task's targets would change with the images"),
        ({}, SHAPE, {"tables": ("there.csv",)}, "a latency table that was measured elsewhere has one size of images only"),
        ({}, SHAPE, {"points": (Point(batch=8, budget=Budget(latency=0.5)),)}, "points are checked with images of one size"),
        ({}, SHAPE, {"compared": True}, "an earlier package takes images of one size"),
    ],
)
def test_what_does_not_go_with_another_size_is_refused(
    network: Network, overrides: dict[str, object], shape: tuple[int, ...], changes: dict[str, object], told: str
) -> None:
    profile = elsewhere().model_copy(update={name: value for name, value in changes.items() if name != "compared"})
    with pytest.raises(ConfigError, match=rf"prune\.resolutions: {told}"):
        networks(recipe(12, **overrides), network, dataset(shape), profile, compared="compared" in changes)


def test_a_network_that_takes_one_size_alone_is_refused(network: Network) -> None:
    options = {"model": {"name": "timm/vit_tiny_patch16_224", "options": {"img_size": 16, "patch_size": 4, "depth": 1}}}
    with pytest.raises(ConfigError, match=r"(?s)the network cannot take images of 12x12.*it stops in patch_embed"):
        networks(recipe(12, **options), network, dataset())


def test_other_groups_at_a_smaller_size_are_refused(network: Network) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)other channels can be pruned with images of 12x12.*{network.groups[0].name}"):
        networks(recipe(12), replace(network, groups=network.groups[1:]), dataset())


def ready(asked: Recipe, network: Network, folder: Path, budget: float) -> ReadyTarget:
    return prepare_target(asked, elsewhere(budget), network, Store(folder).run, networks(asked, network, dataset()))


def test_every_size_has_a_latency_model_of_its_own_and_the_budget_of_the_full_one(network: Network, tmp_path: Path) -> None:
    target = ready(recipe(8, 12), network, tmp_path, 0.5)
    assert [each.network.image_size for each in target.smaller] == [(12, 12), (8, 8)]
    dense = network.dense_widths
    at = [each.latency(dense) for each in (target, *target.smaller)]
    assert at == sorted(at, reverse=True) and len(set(at)) == 3
    assert {each.limit_ms for each in target.smaller} == {target.limit_ms}
    assert {each.dense_ms for each in target.smaller} == {target.dense_ms}
    assert target.least_ms == target.smaller[-1].floor_ms
    assert {artifact.digest for each in target.smaller for artifact in each.evidence} < {artifact.digest for artifact in target.evidence}
    forecast = target.smaller[0].forecast(dense)
    assert forecast.dense_ms == pytest.approx(target.latency(dense))
    assert forecast.kept_ms == pytest.approx(target.smaller[0].latency(dense))
    assert target.smaller[0].forecast_dense() == target.forecast_dense()


def test_epi_follows_the_largest_size_that_can_meet_the_budget(network: Network, tmp_path: Path) -> None:
    wide = recipe(8, 12, **{"prune.floor": 0.75, "prune.margin": 0.0})
    assert ready(wide, network, tmp_path, 0.95).followed.network.image_size == (16, 16)
    assert ready(wide, network, tmp_path, 0.5).followed.network.image_size == (12, 12)
    with pytest.raises(BudgetError, match="with images of any size: the latency budget cannot be met"):
        ready(wide, network, tmp_path, 0.05)


def test_a_dry_run_tells_the_smallest_latency_of_all_sizes(network: Network, tmp_path: Path) -> None:
    found = []
    for asked in (recipe(), recipe(8)):
        options, info = width_choices(network.groups, asked.prune, elsewhere()), check_target(elsewhere().target)
        stores = {"store": Store(tmp_path / "store"), "scratch": Store(tmp_path / "scratch")}
        found.append(foresee(asked, elsewhere(), network, options, info, **stores, smaller=networks(asked, network, dataset())))
    assert found[0].dense_ms == found[1].dense_ms
    assert found[0].smallest_ms is not None and found[1].smallest_ms is not None
    assert found[1].smallest_ms < found[0].smallest_ms


def test_smaller_networks_are_timed_beside_the_dense_one_of_the_full_size(network: Network) -> None:
    profile, built = load_profile("local-cpu", {"target.precision": "fp32"}), []
    smaller = replace(network, image_shape=(1, 8, 8))
    info = device_of(profile.target).describe(profile.target)

    class Built(Exception):
        pass

    def step(stage: object, /, **inputs: object) -> object:
        built.append(inputs["image_shape"])
        raise Built

    full = DeviceTimer(untrained_network(recipe(), network), recipe().timing, profile, info, step)  # type: ignore[arg-type]
    timer = DeviceTimer(untrained_network(recipe(), smaller), recipe().timing, profile, info, step, full)  # type: ignore[arg-type]
    for build in (timer.build_dense, lambda: timer.build({}, profile.target)):
        with pytest.raises(Built):
            build()
    assert built == [(1, 16, 16), (1, 8, 8)]
