import pytest

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.inspecting import Network, inspect_network
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.pruning.groups import Group, Member
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.selection.choices import width_choices


def network_of(overrides: dict[str, object]) -> Network:
    return inspect_network(load_recipe("resnet-edge", overrides), (1, 32, 32), 10)


def options_of(overrides: dict[str, object]) -> dict[str, tuple[int, ...]]:
    recipe = load_recipe("resnet-edge", overrides)
    return dict(width_choices(inspect_network(recipe, (1, 32, 32), 10).groups, recipe.prune, load_profile("local-cpu")))


def test_a_kept_layer_keeps_what_it_is_coupled_with() -> None:
    everything = set(network_of({}).dense_widths)
    left = set(network_of({"prune.keep": ["layer1.*.conv2", "layer3.0.conv1"]}).dense_widths)
    assert everything - set(network_of({"prune.keep": ["layer2", "layer3.1"]}).dense_widths) == {
        *(f"layer2.{block}.conv1" for block in range(3)),
        "layer2.0.conv2",
        "layer3.0.conv2",  # the stream of the third stage runs through layer3.1
        "layer3.1.conv1",
    }
    kept = network_of({"prune.keep": ["layer1.*.conv2", "layer3.0.conv1"]})
    assert {group for operator in kept.operators for group in operator.groups} == left
    assert [operator.operator for operator in kept.operators] == [operator.operator for operator in network_of({}).operators]
    assert everything - left == {"conv1", "layer3.0.conv1"}  # layer1.*.conv2 adds to the stream that conv1 begins


@pytest.mark.parametrize("key", ["keep", "floors", "caps"])
def test_an_unknown_layer_is_refused_with_what_was_meant(key: str) -> None:
    given = ["layer1.0.convl"] if key == "keep" else {"layer1.0.convl": 0.5}
    with pytest.raises(ConfigError, match=rf"prune\.{key}: no layer.* has this name \(did you mean 'layer1\.0\.conv[12]'"):
        options_of({f"prune.{key}": given})


@pytest.mark.parametrize("given", ["relu", "layer4", "layer1.0.*.weight"])
def test_what_has_no_channels_of_its_own_cannot_be_kept(given: str) -> None:
    with pytest.raises(ConfigError, match=r"prune\.keep: no layer has this name"):
        network_of({"prune.keep": [given]})


def test_a_floor_for_the_classifier_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prune\.floors: no layer whose channels may be pruned has this name"):
        options_of({"prune.floors": {"fc": 0.5}})


def test_keeping_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="no channels of this network can be pruned"):
        network_of({"prune.keep": ["*"]})


def test_a_pattern_that_keeps_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert network_of({"prune.keep": ["fc", "layer1.0.conv1"]}).dense_widths.keys() == network_of({}).dense_widths.keys() - {"layer1.0.conv1"}
    assert [line for line in caplog.messages if "prune.keep" in line] == [
        "warning: prune.keep 'fc' changes nothing: no channels of what it names could be pruned"
    ]


def test_floors_and_caps_bound_their_groups_alone() -> None:
    plain, bound = options_of({}), options_of({"prune.floors": {"layer3.*": 0.5, "layer3.0.conv1": 0.25}, "prune.caps": {"layer2.0.conv1": 0.5}})
    assert plain["layer3.1.conv1"] == (16, 32, 48, 64, 80, 96, 112, 128)
    assert bound["layer3.1.conv1"] == (64, 80, 96, 112, 128)
    assert bound["layer3.0.conv1"] == (32, 48, 64, 80, 96, 112, 128)  # the last glob that matches counts
    assert bound["layer2.0.conv1"] == (16, 32)
    assert bound["conv1"] == plain["conv1"]


def test_what_cannot_be_done_says_how_many_positions_a_channel_has() -> None:
    side = tuple(range(192)), tuple(index % 3 for index in range(192))
    heads = Group(name="qkv", width=3, members=(Member(module="qkv", side="out", indices=side[0], channels=side[1]),))
    with pytest.raises(ConfigError, match=r"group qkv cannot be cut as asked\n  given:   3 channels of 64 positions each, a floor of 80%"):
        width_options(heads, step=16, floor=0.8, cap=0.9)


@pytest.mark.parametrize(("width", "floor", "cap"), [(32, 0.1, 0.4), (64, 0.8, 0.5)])
def test_what_cannot_be_done_names_the_group(width: int, floor: float, cap: float) -> None:
    with pytest.raises(ConfigError, match="group stem cannot be cut as asked"):
        width_options(Group(name="stem", width=width, members=()), step=16, floor=floor, cap=cap)
