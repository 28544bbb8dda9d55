"""A target device made ready for selection: its options, latency model and budget."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bonsai.pipeline.run.device_timing import DeviceTimer, Untrained
from bonsai.pipeline.run.inspecting import Asked, Network
from bonsai.pipeline.run.limits import require_runs
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.latency import Line
from bonsai.profiles.schema import HardwareProfile, Precision, Target
from bonsai.profiles.shared_tables import require_device, tables_of
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import DeviceInfo, Engine
from bonsai.stages.backends.runtimes import weight_bits
from bonsai.stages.measurement.latency import ROOFLINE, TABLE_ELSEWHERE, Latency
from bonsai.stages.measurement.process_interval import LEAST_SPREAD
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_scores
from bonsai.stages.pruning.block_losses import BlockLosses
from bonsai.stages.pruning.groups import Group, Widths
from bonsai.stages.pruning.scores import Scores
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.selection.chooser import Chooser
from bonsai.stages.selection.coverage import require_seen
from bonsai.stages.selection.latency import Forecast, NetworkLatency
from bonsai.stages.selection.loop import Fit, Measured
from bonsai.stages.selection.problem import require_reachable
from bonsai.stages.selection.terms import Options
from bonsai.stages.steps.characterize import TableArtifact, characterize
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step
from bonsai.stages.training.progress import say


@dataclass(frozen=True)
class LatencyTables:
    """The latency tables of a profile, one per precision: those that it brings, or what the stage `characterize` makes."""

    untrained: Untrained
    network: Network
    profile: HardwareProfile
    info: DeviceInfo
    step: Step

    def at(self, target: Target) -> TableArtifact:
        """Return the table of one precision, given as the profile's target at that precision.

        Raises:
            ConfigError: A table was brought for the engine, none for the dense FP32 reference.
        """
        brought = tables_of(self.profile)
        if brought and target.precision not in brought:
            raise ConfigError(
                describe(
                    f"profile {self.profile.name}: a latency table is missing",
                    given=f"tables at {', '.join(brought)}",
                    allowed=f"one at {target.precision} too: a budget is judged against the dense FP32 network on the same device",
                    fix="bring a file that `bonsai characterize` wrote: it has both",
                )
            )
        if own := brought.get(target.precision):
            require_device(own.table, own.file, device=self.info.device, isa=self.info.isa, present=self.info.present)
        step = getattr(self.profile.channel_multiple, target.precision)
        keep_float = self.untrained.keep_float if target.precision == "int8" else ()
        text = own.table.to_text() if own else None
        facts = {"target": target, "info": self.info, "step": step, "brought": text, "keep_float": keep_float}
        return self.step(characterize, **self.untrained.built_from, **facts)

    def estimate_ms(self, widths: Widths, precision: Precision) -> float:
        """Return the latency that the table of a precision predicts."""
        target = self.profile.target.at(precision)
        table = self.at(target).load(target)
        return NetworkLatency(table, self.network.operators_at(target), table.meta.line or Line())(widths)


@dataclass(frozen=True, eq=False)
class ReadyTarget:
    """A profile's device with a fitted latency model of the recipe's network, as `prepare_target` makes it.

    Attributes:
        chooser: Chooses widths within the budget.
        dense_ms: Latency of the dense engine at the reference precision.
        table: The latency table at the target's precision.
        tables: The tables of all precisions.
        timer: Times untrained networks, where the device is here.
        points: The same at each of the profile's points.
        full: The same for images of the full size, where these are smaller. The budget and the dense engine are its.
        smaller: The same for smaller images, the largest first (`prune.resolutions`).
    """

    profile: HardwareProfile
    info: DeviceInfo
    network: Network
    chooser: Chooser
    dense_ms: float
    table: TableArtifact
    tables: LatencyTables
    timer: DeviceTimer
    points: tuple[DeviceTimer, ...] = ()
    full: "ReadyTarget | None" = None
    smaller: tuple["ReadyTarget", ...] = ()

    @property
    def followed(self) -> "ReadyTarget":
        """Itself, or for the largest of the smaller images that can meet the budget: what EPI follows."""
        return next((each for each in (self, *self.smaller) if each.floor_ms <= each.limit_ms), self)

    @property
    def least_ms(self) -> float:
        """Predicted latency of the fastest network at any size of images."""
        return min(each.floor_ms for each in (self, *self.smaller))

    @property
    def options(self) -> Options:
        """Widths that each group may keep."""
        return self.chooser.options

    @property
    def latency(self) -> NetworkLatency:
        """Predicts the latency of the network at the target's precision."""
        return self.chooser.latency

    @property
    def limit_ms(self) -> float:
        """The budget."""
        return self.chooser.limit_ms

    @property
    def floor_ms(self) -> float:
        """Predicted latency of the network with every group at its smallest width."""
        return self.chooser.floor_ms

    @property
    def table_source(self) -> str:
        """Whether the latency table was measured, estimated, or measured elsewhere and where."""
        return self.table.source

    @property
    def evidence(self) -> tuple[Artifact, ...]:
        """The table and the timings that selection rests on."""
        timings = [artifact for timer in (self.timer, *self.points) for artifact in timer.evidence]
        return (self.table, *timings, *(artifact for each in self.smaller for artifact in each.evidence))

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that may be pruned."""
        return self.network.groups

    @property
    def weight_bits(self) -> int:
        """Width of the quantised weights that the device needs."""
        return weight_bits(self.profile.target, self.info)

    def scores(self, segment: Checkpoint) -> Scores:
        """Return the scores of a segment's channels by the recipe's criterion."""
        return load_scores(segment, self.chooser.config.criterion)

    def fit(self, segment: Checkpoint, losses: BlockLosses | None = None, *, correction: float = 1.0, limit_ms: float | None = None) -> Fit:
        """Return the widths that fit the budget, with untrained networks timed where the device is here.

        Args:
            segment: Holds the scores.
            losses: What the absence of residual blocks costs; without it none is left out.
            correction: Measured over predicted latency, from a finished engine.
            limit_ms: Milliseconds in place of the budget, where another limit asks for a faster network; no less than the fastest network takes.
        """
        measure, chooser = self.time_untrained if self.info.present else None, self.chooser
        if limit_ms is not None:
            chooser = replace(chooser, limit_ms=min(max(limit_ms, self.floor_ms / (1 - chooser.config.margin)), self.limit_ms))
        return chooser.fit(self.scores(segment), measure=measure, losses=losses, correction=correction, doubt=self.timer.doubt)

    def build_untrained(self) -> Engine:
        """Return the dense engine at the reference precision, with untrained weights. If there is no reference, this engine is timed for the budget."""
        return self.timer.build_dense()

    def engine_mb(self, widths: Widths) -> float:
        """Return the size of an untrained engine at the target's precision, in megabytes (10^6 bytes). Training changes weights, not how many there are."""
        engine = self.timer.build(widths, self.profile.target)
        return (engine.folder / engine.file).stat().st_size / 1e6

    def estimates(self, widths: Widths) -> tuple[Latency, ...] | None:
        """Return the estimated latency of the dense reference and of each of the target's candidates, or None where they can be measured."""
        if self.info.present:
            return None
        found = (self.dense_ms, *(self.tables.estimate_ms(widths, precision) for precision in self.profile.target.candidates))
        clock = ROOFLINE if self.table_source == "estimated" else TABLE_ELSEWHERE
        return tuple(Latency(source="estimated", clock=clock, p50=ms) for ms in found)

    def forecast(self, widths: Widths) -> Forecast:
        """Return what the latency table of the target's precision says of every operator, in the dense network and at these widths."""
        dense = self.network.dense_widths
        found = self.latency.forecast(dense, widths)
        return found if self.full is None else found.beside(self.full.latency.forecast(dense, dense))

    def forecast_dense(self) -> dict[Precision, float]:
        """Return the milliseconds that the latency tables say of the dense network, by precision: of those that there are tables for."""
        if self.full is not None:
            return self.full.forecast_dense()
        dense, own = self.network.dense_widths, self.profile.target.precision
        brought = tables_of(self.profile)
        others = [p for p in self.profile.target.precisions if p != own and (not brought or p in brought) and not self.info.present]
        return {own: self.latency(dense), **{precision: self.tables.estimate_ms(dense, precision) for precision in others}}

    def time_untrained(self, widths: Widths) -> Measured:
        """Build an untrained network of these widths and time it, in several processes where it may end the closed loop."""
        timed = self.timer.time_at_pace(widths, self.limit_ms)
        ms = statistics.mean(one.ms for one in timed)
        found = Measured(ms, ms * self.timer.doubt_of(timed))
        says = f"candidate predicted {self.latency(widths):.3f} ms, measured {ms:.3f} ms, at most {found.upper_ms:.3f} ms, budget {self.limit_ms:.3f} ms"
        say(f"{self.profile.name}: {says}")
        return found


def prepare_target(recipe: Asked, profile: HardwareProfile, network: Network, step: Step, smaller: Sequence[Network] = ()) -> ReadyTarget:
    """Make a profile's device ready: run the stages that its latency model and its budget come from.

    Args:
        recipe: The network, the data and all settings.
        profile: The target.
        network: The recipe's dense network.
        step: Runs the stages.
        smaller: The same network for smaller images, each of which gets a latency model of its own.

    Raises:
        ConfigError: The runtime cannot do what the profile asks.
        DeviceUnavailable: The runtime is not installed.
        BudgetError: The budget is below the narrowest network's latency, at every size of images.
    """
    full = _prepare(recipe, profile, network, step)
    target = replace(full, smaller=tuple(_prepare(recipe, profile, each, step, full) for each in smaller))
    what = f"profile {profile.name}, {profile.budget}{', with images of any size' if smaller else ''}"
    require_reachable(target.least_ms, target.limit_ms, what=what, margin=recipe.prune.margin + LEAST_SPREAD)
    require_runs(profile, recipe.timing, target.limit_ms)
    dense = f"dense {profile.target.reference.upper()} {target.dense_ms:.3f} ms"
    at = [f"{each.floor_ms:.3f} ms with images of {'x'.join(map(str, each.network.image_size))}" for each in target.smaller]
    narrowest = ", ".join([f"{target.floor_ms:.3f} ms", *at])
    say(f"{profile.name}: {dense}, budget {target.limit_ms:.3f} ms, narrowest {narrowest} ({target.table_source})")
    return target


def _prepare(recipe: Asked, profile: HardwareProfile, network: Network, step: Step, full: ReadyTarget | None = None) -> ReadyTarget:
    """Return a target without a check of its budget; with `full`, of smaller images than those."""
    info, untrained = device_of(profile.target).describe(profile.target), untrained_network(recipe, network)
    options = width_choices(network.groups, recipe.prune, profile)
    timer = DeviceTimer(untrained, recipe.timing, profile, info, step, full.timer if full is not None else None)
    tables = LatencyTables(untrained, network, profile, info, step)
    own = tables.at(profile.target)
    table, operators = own.load(profile.target), network.operators_at(profile.target)
    whole = info.present or table.meta.line is not None
    warning = require_seen(network.operators, network.unseen, what=f"profile {profile.name}", timed=whole)
    if warning:
        say(warning)
    if info.present:
        fitted = timer.fit(table, operators, options)
        dense_ms = timer.dense_ms
        latency: NetworkLatency = timer.fit_near(fitted, options, profile.budget.limit_ms(dense_ms))
    else:
        latency = NetworkLatency(table, operators, table.meta.line or Line())
        dense_ms = full.dense_ms if full is not None else tables.estimate_ms(network.dense_widths, profile.target.reference)
    chooser = Chooser(network.groups, network.operators, options, latency, profile.budget.limit_ms(dense_ms), recipe.prune)
    return ReadyTarget(profile, info, network, chooser, dense_ms, own, tables, timer, timer.at_points(), full)


def untrained_network(recipe: Asked, network: Network) -> Untrained:
    """Return the recipe's network as it is exported before it is trained."""
    return Untrained(recipe.model, network.image_shape, network.num_classes, recipe.quantize.keep_float, recipe.export)
