from typing import Any

import pytest

from bonsai.pipeline.recipes.recipe import list_recipes, load_recipe
from bonsai.pipeline.run.trunk import segment_stops
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.imports.registry import resolve
from bonsai.stages.networks.config import RECIPE
from bonsai.stages.networks.factories import FACTORIES
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.criteria import REMOVED
from bonsai.stages.pruning.epi import EpiConfig
from bonsai.stages.quantization.config import QuantizeConfig
from bonsai.stages.store.artifact import fingerprint


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_loads_and_names_what_exists(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_profile(recipe.profile).name == recipe.profile
    assert build_network(recipe.model, (3, 512) if recipe.data.name == "vibration" else (1, 32, 32), 10) is not None


def test_a_shipped_recipe_starts_at_most_from_another_that_ships_and_can_be_trained_for_no_target() -> None:
    named = {name: load_recipe(name).model.weights for name in list_recipes()}
    others = {weights.removeprefix(RECIPE) for weights in named.values() if weights is not None}
    assert others == {"mobilenet-digits"}
    assert all(load_recipe(name).prune.regulariser.name == "none" for name in others)


@pytest.mark.parametrize("name", FACTORIES)
def test_every_model_of_the_table_can_be_imported(name: str) -> None:
    assert callable(resolve(name, FACTORIES, "model"))


def test_an_import_string_stands_for_a_model_of_ones_own() -> None:
    recipe = load_recipe("resnet-edge", {"model.name": "bonsai.stages.networks.cifar_resnet:resnet8", "model.options": "{width: 16}"})
    assert sum(p.numel() for p in build_network(recipe.model, (1, 32, 32), 10).parameters()) < 100_000


@pytest.mark.parametrize(
    ("overrides", "section", "expected"),
    [
        ({"model.options": "{}"}, "model", {"name": "resnet20", "options": {}}),
        ({"data.options": {"size": 16}}, "data", {"options": {"size": 16}, "test": 0.2}),
        ({"prune.epi": "{tau: 0.9}"}, "prune", {"epi": EpiConfig(tau=0.9), "criterion": "snip"}),
        ({"prune.epi.tau": "0.9"}, "prune", {"epi": EpiConfig(tau=0.9, every=0.015, window=5), "criterion": "snip"}),
        ({"quantize": "{}"}, "quantize", dict(QuantizeConfig())),
    ],
)
def test_a_mapping_given_whole_replaces_the_recipes(overrides: dict[str, Any], section: str, expected: dict[str, Any]) -> None:
    found = dict(getattr(load_recipe("resnet-edge", overrides), section))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", ["no.such.module:thing", "bonsai.stages.networks.cifar_resnet:resnet999"])
def test_an_import_string_that_leads_nowhere_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be imported"):
        resolve(name, FACTORIES, "model")


def test_the_initial_weights_depend_on_the_seed_alone() -> None:
    recipe = load_recipe("resnet-edge")
    one, two = (build_network(recipe.model, (1, 32, 32), 10).state_dict() for _ in range(2))
    assert all((one[name] == two[name]).all() for name in one)
    other = build_network(recipe.model.model_copy(update={"seed": 1}), (1, 32, 32), 10).state_dict()
    assert not (one["conv1.weight"] == other["conv1.weight"]).all()


def test_the_trunk_is_cut_into_checks_at_shares_of_the_cycle() -> None:
    stops, total = segment_stops(load_recipe("resnet-edge", {"training.epochs": 10, "prune.epi.every": 0.01}), images=640)
    assert (stops, total) == (list(range(1, 26)), 100)
    assert segment_stops(load_recipe("resnet-edge", {"training.epochs": 100, "prune.epi.every": 0.01}), images=640)[0] == list(range(10, 251, 10))


def test_more_checks_than_steps_leave_no_empty_segment() -> None:
    stops, total = segment_stops(load_recipe("resnet-edge", {"training.epochs": 4, "prune.epi.every": 0.01}), images=448)
    assert stops == [1, 2, 3, 4, 5, 6, 7]
    assert total == 28


def test_a_training_too_short_for_epi_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"16 optimizer steps, the latest check at 25% of them: 4 checks"):
        segment_stops(load_recipe("resnet-edge", {"training.epochs": 4}), images=256)
    assert segment_stops(load_recipe("resnet-edge", {"training.epochs": 4, "prune.policy": "{name: initialisation}"}), images=256)[0][0] == 0


def test_qat_must_thaw_before_it_freezes() -> None:
    with pytest.raises(ConfigError, match="frozen from the start, QAT diverges"):
        load_recipe("resnet-edge", {"quantize.epochs": 1, "quantize.frozen_epochs": 1})


def test_distillation_without_qat_is_refused() -> None:
    with pytest.raises(ConfigError, match="`distill` acts in QAT, which `qat: never` leaves out"):
        load_recipe("resnet-edge", {"quantize.qat": "never", "quantize.distill": {}})


@pytest.mark.parametrize(("qat", "epochs"), [("never", 0), ("when_needed", 4), ("always", 4)])
def test_the_epochs_of_a_plan_count_qat_where_it_may_run(qat: str, epochs: int) -> None:
    assert load_recipe("resnet-edge", {"quantize.qat": qat}).quantize.most_epochs == epochs


@pytest.mark.parametrize("name", REMOVED)
def test_a_criterion_that_was_removed_is_refused_with_another_one(name: str) -> None:
    reason, instead = REMOVED[name]
    with pytest.raises(ConfigError, match=f"`{name}` was removed, because {reason}: use `{instead}`"):
        load_recipe("resnet-edge", {"prune.criterion": name})


def test_the_reference_is_no_part_of_what_a_training_is_told_by() -> None:
    trained, none = (load_recipe("resnet-edge", {"training.reference": name}).training for name in ("trained", "none"))
    assert load_recipe("resnet-edge").training == trained
    assert fingerprint(trained) == fingerprint(none)
    assert fingerprint(trained) != fingerprint(trained.model_copy(update={"seed": 1}))


def test_imitating_a_reference_that_is_not_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`trained` is the reference, and training\.reference is `none`: set prune\.distill\.teacher to `trigger`"):
        load_recipe("resnet-edge", {"training.reference": "none", "prune.distill": {}})
    assert load_recipe("resnet-edge", {"training.reference": "none", "prune.distill": {"teacher": "trigger"}}).prune.distill is not None


def test_weights_that_nobody_gives_are_no_reference() -> None:
    with pytest.raises(ConfigError, match=r"training\.reference `given` is the network with the weights of model\.weights, which is null: name a file there"):
        load_recipe("resnet-edge", {"training.reference": "given"})
