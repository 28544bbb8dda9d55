import pytest

from bonsai.pipeline.run.loading import load
from bonsai.profiles.errors import ConfigError

NONE = {"training.reference": "none"}


def test_a_limit_on_the_drop_is_refused_where_no_reference_is_trained() -> None:
    with pytest.raises(ConfigError) as refused:
        load("resnet-edge", ["local-cpu", "t4"], NONE)
    assert str(refused.value).splitlines() == [
        "a limit on the accuracy drop needs a reference, and training.reference is `none`",
        "  given:   gates.max_drop 0.02 in profile local-cpu, gates.max_drop 0.02 in profile t4",
        "  allowed: gates.max_drop null: without a reference no drop is known; gates.min_metric limits what the engine itself must reach",
        "  do:      set profile.gates.max_drop=null, or training.reference=trained",
    ]


@pytest.mark.parametrize("null", [None, "null"])
def test_without_that_limit_no_reference_is_needed(null: str | None) -> None:
    recipe, (profile,) = load("resnet-edge", "local-cpu", {**NONE, "profile.gates.max_drop": null, "profile.gates.min_metric": 0.9})
    assert (recipe.training.reference, profile.gates.max_drop, profile.gates.min_metric) == ("none", None, 0.9)
