import pytest

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.trunk import segment_stops
from bonsai.profiles.errors import ConfigError
from bonsai.stages.pruning.epi import EpiConfig
from bonsai.stages.pruning.policy import FinetuneConfig, PolicyConfig, RecoverConfig, fires
from bonsai.stages.steps.recover import branch_end
from bonsai.stages.training.config import TrainConfig

EPI = EpiConfig(window=1, monotone=1)
SETTLED, UNSETTLED = (1.0, 1.0), (None, 0.5)


@pytest.mark.parametrize(
    ("policy", "curve", "epoch", "expected"),
    [
        (PolicyConfig(), SETTLED, 1, True),
        (PolicyConfig(), UNSETTLED, 99, False),
        (PolicyConfig(name="epoch", epoch=3), SETTLED, 2.5, False),
        (PolicyConfig(name="epoch", epoch=3), UNSETTLED, 3.0, True),
        (PolicyConfig(name="initialisation"), UNSETTLED, 0, True),
        (PolicyConfig(name="trained", finetune=FinetuneConfig()), SETTLED, 99, False),
    ],
)
def test_what_each_policy_waits_for(policy: PolicyConfig, curve: tuple[float | None, ...], epoch: float, expected: bool) -> None:
    assert fires(policy, EPI, tau=0.983, curve=curve, epoch=epoch) is expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prune.policy.name": "epoch"}, "`epoch` belongs to the policy `epoch`: it needs one"),
        ({"prune.policy.epoch": 3}, "`epoch` belongs to the policy `epoch`: not to `epi`"),
        ({"prune.policy.name": "trained"}, "`finetune` belongs to the policy `trained`: it needs one"),
        ({"prune.policy": "{name: epoch, epoch: 99}"}, "epoch is beyond training.epochs"),
    ],
)
def test_a_policy_without_what_it_needs_is_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("resnet-edge", overrides)


def test_the_checks_reach_as_far_as_the_policy_needs() -> None:
    def stops(policy: str) -> list[int]:
        recipe = load_recipe("resnet-edge", {"training.epochs": 4, "prune.epi": {"every": 0.1, "latest": 0.5, "window": 3}, "prune.policy": policy})
        return segment_stops(recipe, images=640)[0]

    assert stops("{name: epi}") == [4, 8, 12, 16, 20]
    assert stops("{name: epoch, epoch: 1}") == [4, 8, 10, 12, 16, 20]
    assert stops("{name: epoch, epoch: 3.01}") == [4, 8, 12, 16, 20, 31]
    assert stops("{name: initialisation}") == [0, 4, 8, 12, 16, 20]


def test_a_branch_ends_with_the_cycle_or_with_a_fine_tuning_of_its_own() -> None:
    training = TrainConfig(epochs=10, lr=1.0, warmup_epochs=0)
    stop, rate = branch_end(50, 10, training, RecoverConfig(), None)
    assert stop == 100
    assert rate(50) == pytest.approx(0.5)
    stop, rate = branch_end(100, 10, training, RecoverConfig(), FinetuneConfig(epochs=2, lr=0.2))
    assert stop == 120
    assert [rate(step) for step in (100, 110, 120)] == pytest.approx([0.2, 0.1, 0])


def test_a_longer_recovery_stretches_what_is_left_of_the_cycle() -> None:
    training = TrainConfig(epochs=10, lr=1.0, warmup_epochs=0)
    stop, rate = branch_end(20, 10, training, RecoverConfig(epochs=16), None)
    _, plain = branch_end(20, 10, training, RecoverConfig(), None)
    assert stop == 20 + 160
    assert [rate(20 + 2 * step) for step in range(0, 80, 20)] == pytest.approx([plain(20 + step) for step in range(0, 80, 20)])
    assert rate(stop) == pytest.approx(0)


def test_the_rate_rises_over_a_part_of_the_recovery() -> None:
    training = TrainConfig(epochs=10, lr=1.0, warmup_epochs=0)
    _, plain = branch_end(20, 10, training, RecoverConfig(epochs=16), None)
    _, rising = branch_end(20, 10, training, RecoverConfig(epochs=16, warmup=0.25), None)
    assert [rising(step) / plain(step) for step in (20, 39, 59, 60, 170)] == pytest.approx([1 / 40, 0.5, 1, 1, 1])


def test_a_length_of_recovery_has_no_place_after_the_cycle() -> None:
    with pytest.raises(ConfigError, match=r"with the policy `trained` it is `policy\.finetune\.epochs`"):
        load_recipe("resnet-edge", {"prune.policy": {"name": "trained", "finetune": {}}, "prune.recover.epochs": 3})
    with pytest.raises(ConfigError, match=r"`recover\.warmup` belongs to a branch within the cycle"):
        load_recipe("resnet-edge", {"prune.policy": {"name": "trained", "finetune": {}}, "prune.recover.warmup": 0.1})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prune.regulariser.name": "bn_l1"}, "it has no time to"),
        ({"prune.distill": {"teacher": "trigger"}}, "is an untrained network"),
        ({"prune.resolutions": [16]}, "nobody knows what smaller images cost"),
    ],
)
def test_what_needs_a_trunk_is_refused_at_initialisation(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("resnet-edge", {"prune.policy": {"name": "initialisation"}, **overrides})


def test_a_teacher_for_images_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`distill` does not go with `resolutions`"):
        load_recipe("resnet-edge", {"prune.resolutions": [16], "prune.distill": {}})


@pytest.mark.parametrize(("policy", "longest"), [({"name": "initialisation"}, 360), ({"name": "epoch", "epoch": 5}, 270), ({"name": "epi"}, 270)])
def test_a_removal_may_last_from_its_branch_to_the_end_of_the_cycle(policy: dict[str, object], longest: int) -> None:
    def recipe(iterations: int) -> Recipe:
        return load_recipe(
            "resnet-edge", {"prune.policy": policy, "prune.epi.every": 0.01, "prune.schedule": {"name": "linear", "steps": 2, "iterations": iterations}}
        )

    assert segment_stops(recipe(longest), images=18 * 64)[1] == 360
    with pytest.raises(ConfigError, match=f"allowed: at most {longest},"):
        segment_stops(recipe(longest + 1), images=18 * 64)
