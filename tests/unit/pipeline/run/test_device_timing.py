from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_chooser import make_chooser

from bonsai.pipeline.run.device_timing import DeviceTimer, Timed, Untrained
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.groups import Widths

SHAPE = (1, 16, 16)
CHOOSER = make_chooser(resnet8(in_channels=1, num_classes=10), SHAPE)


class Surveyed(DeviceTimer):
    """Finds the milliseconds of an invented device, and the narrowest network, the second, as slow as `narrow` says of each survey."""

    narrow: tuple[float, ...] = ()
    surveys = 0

    def survey(self, networks: Sequence[Widths], repeat: int = 0) -> list[Timed]:
        assert repeat == self.surveys
        self.surveys += 1
        found = [CHOOSER.latency(widths) for widths in networks]
        return [Timed(ms * self.narrow[repeat] if place == 1 else ms, 0.01) for place, ms in enumerate(found)]


def timer(*narrow: float) -> Surveyed:
    profile = load_profile("local-cpu")
    untrained = Untrained(ModelConfig(name="resnet8"), SHAPE, 10, (), ExportConfig())
    found = Surveyed(untrained, TimingConfig(fitting=3), profile, device_of(profile.target).describe(profile.target), lambda *_, **__: Path())
    found.narrow = narrow
    return found


@pytest.mark.parametrize(("narrow", "surveys"), [((1.0,), 1), ((1000.0, 1.0), 2)])
def test_networks_are_timed_again_where_the_narrowest_seems_slow(narrow: tuple[float, ...], surveys: int) -> None:
    chosen = timer(*narrow)
    latency = chosen.fit(CHOOSER.latency.table, CHOOSER.operators, CHOOSER.options)
    assert chosen.surveys == surveys
    widest = {group: max(widths) for group, widths in CHOOSER.options.items()}
    assert latency(widest) == pytest.approx(CHOOSER.latency(widest), rel=0.05)


def test_a_network_that_is_not_faster_where_it_is_narrow_is_refused() -> None:
    with pytest.raises(ConfigError, match="the narrowest network is not faster than the dense one"):
        timer(1000.0, 1000.0).fit(CHOOSER.latency.table, CHOOSER.operators, CHOOSER.options)


def test_the_upper_end_holds_what_the_verdict_will_doubt() -> None:
    quiet, noisy = timer(1.0), timer(1.0)
    assert quiet.doubt == pytest.approx(1.017, abs=0.001)  # 1 % between processes is the least that is believed
    assert quiet.doubt_of([Timed(2.0, 0.001)] * 6) == pytest.approx(quiet.doubt)
    assert noisy.doubt_of([Timed(ms, 0.001) for ms in (0.97, 1.0, 1.03)]) == pytest.approx(1.052, abs=0.002)
    assert noisy.doubt == pytest.approx(1.052, abs=0.002), "the next network is doubted as much"


class Timings(Surveyed):
    """Takes 1 ms where `dense` says so of each process, in order; the network always takes as long."""

    dense: tuple[float, ...] = ()

    def time(self, _: Widths, *, limit_ms: float | None = None) -> Timed:
        self._dense.append(self.dense[(len(self._dense) - 1) % len(self.dense)])
        return Timed(0.25 / self._dense[-1], 0.001, 0.25, self._dense[-1])

    def time_again(self, widths: Widths) -> Timed:
        return self.time(widths)


@pytest.mark.parametrize(
    ("dense", "limit", "processes"),
    [((1.0,), 0.3, 6), ((1.0, 1.1), 0.3, 5), ((1.0,), 0.2, 1), ((1.1, 1.0), 0.3, 5), ((1.0, 1.3, 1.3, 1.3, 1.3), 0.3, 2)],
    ids=["quiet", "every second disturbed", "above the limit", "the first disturbed", "nearly always disturbed"],
)
def test_only_processes_count_in_which_the_dense_engine_ran_at_its_pace(dense: tuple[float, ...], limit: float, processes: int) -> None:
    profile = load_profile("local-cpu")
    untrained = Untrained(ModelConfig(name="resnet8"), SHAPE, 10, (), ExportConfig())
    chosen = Timings(untrained, TimingConfig(), profile, device_of(profile.target).describe(profile.target), lambda *_, **__: Path())
    chosen.dense, chosen._dense = dense, [1.0]
    found = chosen.time_at_pace({}, limit)
    assert len(found) == processes
    assert {one.ms for one in found} == {0.25}
