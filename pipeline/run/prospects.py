"""Predicts what a run can gain: how much of the network can be pruned, how much of it the latency table covers, and how fast it can get."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.device_timing import DeviceTimer
from bonsai.pipeline.run.inspecting import Network
from bonsai.pipeline.run.precisions import prepare_precisions
from bonsai.pipeline.run.targets import untrained_network
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.runtimes import runtime_of
from bonsai.stages.selection.coverage import LEAST_SEEN, prunable_share, seen_share
from bonsai.stages.selection.operator_records import count_macs_at
from bonsai.stages.selection.terms import Options
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step, Store
from bonsai.stages.training.progress import silence

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
QUICK = {"runs": 200, "seconds": 0.5, "warmup_runs": 20, "warmup_seconds": 0.1, "tries": 1, "fitting": 0}
"""How the two networks are timed."""
MOST_LAYERS = 60
"""Most convolutions and matrix products of a network that a dry run exports; a larger one takes too long."""


class Prospect(Record):
    """What a run can gain. MACs are fractions (0-1) of the dense network's multiply-accumulates.

    Attributes:
        prunable_macs: MACs in operators that get smaller if a group is pruned.
        least_macs: MACs that are left if every group has its smallest width.
        seen_macs: MACs in operators that the latency table has; below 0.9 no latency is predicted.
        dense_ms: Latency of the dense engine at the reference precision; None if it was neither timed nor estimated.
        smallest_ms: Latency with every group at its smallest width, at the target's precision.
        source: Where the milliseconds come from, or why there are none.
    """

    prunable_macs: float
    least_macs: float
    seen_macs: float
    dense_ms: float | None
    smallest_ms: float | None
    source: str

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same in words."""
        seen = f"the latency table sees {self.seen_macs:.0%}" + ("" if self.seen_macs >= LEAST_SEEN else ": no milliseconds are promised")
        work = f"multiply-accumulates: {self.prunable_macs:.0%} can be pruned, {self.least_macs:.0%} are left at the narrowest widths, {seen}"
        if self.dense_ms is None or self.smallest_ms is None:
            return work, f"latency: {self.source}"
        return work, f"latency: dense {self.dense_ms:.3g} ms, smallest {self.smallest_ms:.3g} ms ({self.source})"


class NotFinishedError(Exception):
    """A stage without a finished artifact."""


def foresee(
    recipe: Recipe,
    profile: HardwareProfile,
    network: Network,
    options: Options,
    info: DeviceInfo,
    *,
    store: Store,
    scratch: Store,
    smaller: Sequence[Network] = (),
) -> Prospect:
    """Return what a run can gain for one profile; what is finished already is looked up, the rest is estimated, or timed within seconds.

    Args:
        recipe: The network, the data and all settings.
        profile: The target.
        network: The recipe's dense network.
        options: Widths to choose from.
        info: The device.
        store: Only read.
        scratch: Takes what is made.
        smaller: The same network for smaller images.

    Raises:
        BonsaiError: The error that the run itself would end with before training.
    """
    narrow = network.dense_widths | {group: min(widths) for group, widths in options.items()}
    choice = {group for group, widths in options.items() if len(widths) > 1}
    dense_ms, smallest_ms, source = _milliseconds(recipe, profile, network, smaller, options, info, store=store, scratch=scratch)
    missed = sum(each.macs for each in network.unseen)
    return Prospect(
        prunable_macs=prunable_share(network.operators, network.unseen, choice),
        least_macs=(count_macs_at(network.operators, narrow) + missed) / max(count_macs_at(network.operators, network.dense_widths) + missed, 1),
        seen_macs=seen_share(network.operators, network.unseen),
        dense_ms=dense_ms,
        smallest_ms=smallest_ms,
        source=source,
    )


def _milliseconds(
    recipe: Recipe, profile: HardwareProfile, network: Network, smaller: Sequence[Network], options: Options, info: DeviceInfo, *, store: Store, scratch: Store
) -> tuple[float | None, float | None, str]:
    """Return the dense and the smallest latency, and where they come from."""
    try:
        with silence():
            step = finished_only(store) if info.present else _finished_or(store, scratch)
            target = prepare_precisions(recipe, profile, network, step, smaller).targets[0]
    except NotFinishedError:
        return _timed(recipe, profile, network, smaller, options, info, _finished_or(store, scratch))
    if info.present:
        return target.dense_ms, target.least_ms, "dense timed by an earlier run, smallest predicted"
    source = "from published rates" if target.table_source == "estimated" else f"by a latency table {target.table_source}"
    return target.dense_ms, target.least_ms, f"estimated {source}"


def _timed(
    recipe: Recipe, profile: HardwareProfile, network: Network, smaller: Sequence[Network], options: Options, info: DeviceInfo, step: Step
) -> tuple[float | None, float | None, str]:
    """Time the untrained dense and narrowest networks, where both are built within seconds."""
    layers = sum(not operator.operator.is_light for operator in network.operators)
    if not runtime_of(profile.target).measures_operators or layers > MOST_LAYERS:
        return None, None, "not timed in a dry run, since its engines take long to build; a run times it before it trains"
    timing = recipe.timing.model_copy(update=QUICK)
    timer = DeviceTimer(untrained_network(recipe, network), timing, profile, info, step)
    if smaller:
        timer = DeviceTimer(untrained_network(recipe, smaller[-1]), timing, profile, info, step, timer)
    with silence():
        smallest = timer.time({group: min(widths) for group, widths in options.items()})
    return timer.dense_ms, smallest.ms, "timed just now, in a few hundred runs of untrained networks"


def finished_only(store: Store) -> Step:
    """Return a step that only looks up."""

    def step(stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        artifact = store.find(stage, **inputs)
        if artifact is None:
            raise NotFinishedError(stage.__name__)
        return artifact

    return step


def _finished_or(store: Store, scratch: Store) -> Step:
    """Return a step that looks up, and makes what is missing elsewhere."""

    def step(stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        return store.find(stage, **inputs) or scratch.run(stage, **inputs)

    return step
