"""Several values for a key make variants; `tests/integration/test_sweep_run.py` runs some."""

from typing import Any

import pytest

from bonsai.pipeline.compare.sweep import MOST, takes_list, values_of, variants_of
from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.schema import HardwareProfile


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("prune.criterion", "fpgm", ["fpgm"]),
        ("prune.criterion", "fpgm,snip", ["fpgm", "snip"]),
        ("prune.criterion", "fpgm, snip", ["fpgm", "snip"]),
        ("prune.criterion", "[fpgm, snip]", ["fpgm", "snip"]),
        ("prune.criterion", ["fpgm", "snip"], ["fpgm", "snip"]),
        ("prune.floor", "0.1, 0.2", [0.1, 0.2]),
        ("prune.distill", "null,{weight: 0.5, temperature: 4}", [None, {"weight": 0.5, "temperature": 4}]),
        ("prune.distill", "{weight: 0.5, temperature: 4}", ["{weight: 0.5, temperature: 4}"]),
        ("prune.recover.epochs", "auto,10,null", ["auto", 10, None]),
        ("prune.keep", "[conv1, fc]", [["conv1", "fc"]]),
        ("prune.keep", ["conv1", "fc"], [["conv1", "fc"]]),
        ("prune.keep", "[],[conv1, fc]", [[], ["conv1", "fc"]]),
        ("prune.keep", [[], ["conv1", "fc"]], [[], ["conv1", "fc"]]),
        ("model.options.width", [16, 32], [[16, 32]]),
        ("model.options.width", "16,32", [16, 32]),
        ("description", "'small, fast'", ["'small, fast'"]),
        ("description", "'small, fast',plain", ["small, fast", "plain"]),
        ("description", "no ] list, at all", ["no ] list, at all"]),
        ("profile.budget.latency", "0.3,0.5", [0.3, 0.5]),
        ("profile.budget.latency", [0.3, 0.5], [0.3, 0.5]),
        ("profile.tables", ["a.csv", "b.csv"], [["a.csv", "b.csv"]]),
        ("no.such.key", [1, 2], [[1, 2]]),
    ],
)
def test_commas_outside_brackets_and_quotes_separate_values(key: str, value: Any, expected: list[Any]) -> None:
    assert values_of(key, value) == expected


@pytest.mark.parametrize(
    ("record", "key", "expected"),
    [
        (Recipe, "prune.keep", True),
        (Recipe, "prune.floors.conv1", False),
        (Recipe, "prune.epi.window", False),
        (Recipe, "prune.distill.weight", False),
        (Recipe, "model.options.width", True),
        (Recipe, "prune.unknown", None),
        (HardwareProfile, "tables", True),
        (HardwareProfile, "gates.max_drop", False),
    ],
)
def test_the_schema_tells_whether_a_key_takes_a_list(record: type, key: str, expected: bool | None) -> None:
    assert takes_list(record, key) is expected


def test_without_several_values_there_is_one_variant_without_a_name() -> None:
    overrides = {"prune.criterion": "fpgm", "model.options": "{}"}
    assert variants_of(overrides) == (("", {}, overrides),)


def test_two_keys_give_all_combinations_with_names_that_tell() -> None:
    found = variants_of({"prune.criterion": "fpgm,magnitude_l2", "training.seed": 3, "profile.budget.latency": [0.3, 0.5]})
    assert [variant.name for variant in found] == [
        "criterion-fpgm--latency-0.3",
        "criterion-fpgm--latency-0.5",
        "criterion-magnitude-l2--latency-0.3",
        "criterion-magnitude-l2--latency-0.5",
    ]
    assert found[1].settings == {"prune.criterion": "fpgm", "profile.budget.latency": 0.5}
    assert found[1].overrides == {"prune.criterion": "fpgm", "training.seed": 3, "profile.budget.latency": 0.5}


def test_keys_with_one_end_and_values_with_one_spelling_have_names_of_their_own() -> None:
    names = [variant.name for variant in variants_of({"training.seed": "0,1", "model.seed": "0,1"})]
    assert names == [f"training.seed-{a}--model.seed-{b}" for a in (0, 1) for b in (0, 1)]
    assert [variant.name for variant in variants_of({"description": "a b,a-b"})] == ["description-a-b-1", "description-a-b-2"]


def test_too_many_combinations_are_refused() -> None:
    seeds = ",".join(map(str, range(MOST)))
    assert len(variants_of({"training.seed": seeds})) == MOST
    with pytest.raises(ConfigError, match=rf"(?s)too many combinations.*{MOST} of training\.seed x 2 of model\.seed.*allowed: at most {MOST}"):
        variants_of({"training.seed": seeds, "model.seed": "0,1"})


def test_a_value_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set prune\.criterion: a value is given twice"):
        variants_of({"prune.criterion": "fpgm,fpgm"})


def test_a_variant_is_loaded_with_its_values_and_its_name_behind_the_profiles() -> None:
    variant = variants_of({"prune.criterion": "fpgm,snip", "profile.gates.max_drop": 0.1})[0]
    recipe, (profile,) = variant.load("resnet-edge", ["local-cpu"])
    assert (recipe.prune.criterion, profile.name, profile.gates.max_drop) == ("fpgm", "local-cpu--criterion-fpgm", 0.1)


def test_a_value_that_is_not_allowed_is_an_error_of_its_variant() -> None:
    with pytest.raises(ConfigError, match=r"--set prune\.criterion: 'prune\.criterion' is not usable"):
        variants_of({"prune.criterion": "fpgm,fpmg"})[1].load("resnet-edge", ["local-cpu"])
