import pytest
import torch
from tiny_chooser import STEP, make_chooser

from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.pruning.scores import Scores
from bonsai.stages.selection.chooser import Chooser
from bonsai.stages.selection.loop import Measured

SHAPE = (1, 16, 16)


@pytest.fixture(scope="module")
def chooser() -> Chooser:
    return make_chooser(resnet8(in_channels=1, num_classes=10), SHAPE)


def scores_of(chooser: Chooser) -> Scores:
    generator = torch.Generator().manual_seed(0)
    return {group.name: torch.rand(group.width, generator=generator) for group in chooser.groups}


def test_what_epi_compares_is_within_the_budget_and_not_rounded_to_the_step(chooser: Chooser) -> None:
    kept = chooser.keep(scores_of(chooser))
    assert any(len(channels) % STEP for channels in kept.values())
    assert kept.keys() == chooser.options.keys()
    assert all(channels == tuple(sorted(channels)) for channels in kept.values())


def test_without_a_measurement_the_prediction_is_what_fits(chooser: Chooser) -> None:
    fit = chooser.fit(scores_of(chooser))
    assert fit.rounds == ()
    assert fit.aim_ms == pytest.approx(chooser.limit_ms * 0.99)
    assert chooser.latency(fit.widths) == pytest.approx(fit.predicted_ms)
    assert fit.predicted_ms <= fit.aim_ms
    assert all(width in chooser.options[group] for group, width in fit.widths.items())


def test_what_is_measured_is_what_fits_where_it_can_be(chooser: Chooser) -> None:
    timed: list[dict[str, int]] = []

    def measure(widths: dict[str, int]) -> Measured:
        timed.append(widths)
        return Measured(1.2 * chooser.latency(widths), 1.2 * chooser.latency(widths))

    fit = chooser.fit(scores_of(chooser), measure)
    assert [latest.widths for latest in fit.rounds] == timed
    assert 1.2 * chooser.latency(fit.widths) <= fit.aim_ms
    corrected = chooser.fit(scores_of(chooser), measure, correction=1.2)
    assert len(corrected.rounds) < len(fit.rounds)


def test_choosing_again_aims_at_no_less_than_can_be_had(chooser: Chooser) -> None:
    narrowest = {group: min(widths) for group, widths in chooser.options.items()}
    assert chooser.floor_ms == pytest.approx(chooser.latency(narrowest))
    assert chooser.reselection(0.0).limit_ms == chooser.floor_ms
    assert chooser.reselection(chooser.limit_ms).limit_ms == chooser.limit_ms
