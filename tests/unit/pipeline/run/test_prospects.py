from pathlib import Path

import pytest

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.inspecting import Network, inspect_network
from bonsai.pipeline.run.prospects import Prospect, foresee
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.registry import check_target
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.selection.operator_records import Unseen
from bonsai.stages.store.store import Store

TINY = Path(__file__).parents[3] / "integration" / "configs" / "tiny.yaml"
ELSEWHERE = load_profile("x86-avx512-vnni", {"budget.latency": 0.5})


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(str(TINY))


@pytest.fixture(scope="module")
def network(recipe: Recipe) -> Network:
    return inspect_network(recipe, (1, 16, 16), 10)


def prospect_of(recipe: Recipe, network: Network, scratch: Path) -> Prospect:
    options, info = width_choices(network.groups, recipe.prune, ELSEWHERE), check_target(ELSEWHERE.target)
    return foresee(recipe, ELSEWHERE, network, options, info, store=Store(scratch / "store"), scratch=Store(scratch / "scratch"))


def test_a_device_that_is_elsewhere_gets_estimates_that_are_called_so(recipe: Recipe, network: Network, tmp_path: Path) -> None:
    found = prospect_of(recipe, network, tmp_path)
    assert found.source == "estimated from published rates"
    assert found.dense_ms is not None
    assert found.smallest_ms is not None
    assert 0 < found.smallest_ms < found.dense_ms
    assert (found.seen_macs, found.prunable_macs) == (1, pytest.approx(1))
    assert 0 < found.least_macs < 0.5
    assert not (tmp_path / "store").exists()


def test_layers_that_are_kept_in_float_are_estimated_in_float(recipe: Recipe, network: Network, tmp_path: Path) -> None:
    kept = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"keep_float": ("layer3",)})})
    in_int8 = prospect_of(recipe, network, tmp_path)
    beside = prospect_of(kept, inspect_network(kept, (1, 16, 16), 10), tmp_path)
    assert beside.dense_ms == in_int8.dense_ms  # the reference is float anyway
    assert beside.smallest_ms is not None
    assert in_int8.smallest_ms is not None
    assert beside.smallest_ms > in_int8.smallest_ms


def test_what_is_hardly_seen_ends_before_anything_is_trained(recipe: Recipe, network: Network, tmp_path: Path) -> None:
    hidden = Network(network.image_shape, network.num_classes, network.groups, network.operators, (Unseen(name="volume (convolution)", macs=10**9),))
    with pytest.raises(ConfigError, match=r"(?s)no milliseconds can be promised.*volume"):
        prospect_of(recipe, hidden, tmp_path)


def test_the_sentences_say_shares_latency_and_what_is_not_promised() -> None:
    found = Prospect(prunable_macs=0.5, least_macs=0.25, seen_macs=0.8, dense_ms=2.0, smallest_ms=0.5, source="estimated from published rates")
    work, latency = found.sentences
    assert work == ("multiply-accumulates: 50% can be pruned, 25% are left at the narrowest widths, the latency table sees 80%: no milliseconds are promised")
    assert latency == "latency: dense 2 ms, smallest 0.5 ms (estimated from published rates)"
    assert found.model_copy(update={"dense_ms": None, "source": "not timed"}).sentences[1] == "latency: not timed"
