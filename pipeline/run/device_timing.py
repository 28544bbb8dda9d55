"""A target's device as a place to time networks on that nobody has trained: latency depends on the widths alone."""

import math
import random
import statistics
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.latency import LatencyTable
from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.engine import DeviceInfo, Engine
from bonsai.stages.backends.runtimes import graph_form, runtime_of
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.measurement.calm import PACE
from bonsai.stages.measurement.measurements import Benchmark, Candidate
from bonsai.stages.measurement.process_interval import LEAST_SPREAD, half_width, looks_of
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.groups import WidthPlan, Widths
from bonsai.stages.selection.fitting import FittedLatency
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operator_records import Block, Operator, blocks_in, whole_blocks
from bonsai.stages.selection.terms import Options
from bonsai.stages.steps.benchmark import benchmark
from bonsai.stages.steps.compile import compile as compile_engine
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step
from bonsai.stages.training.progress import say

FINAL = 6
"""Number of processes in which a network is timed that may end the closed loop."""
TRIES = 4
"""Further processes where the dense engine did not run at its pace."""
AT_PACE = 0.03
"""The dense engine runs at its pace in a process where its median is at most this fraction above the `PACE`-th percentile of its medians so far."""
LIKELY = 1.2816
"""Quantile of the normal distribution: in the verdict, nine of ten networks that are let through are within the budget."""
FITTING_DEAR = 6
"""Most random networks that a latency model is fitted to where an engine takes long to build."""
DRAWS = 20
"""Random networks that are drawn for each one near the budget."""
TINY_MS = 1e-9
"""A prediction below this counts as this."""
SURVEYS = 2
"""Most surveys of the networks that a latency model is fitted to. One engine was seen three times as slow for as long as its process held it open."""
FEW_RUNS, FEW_SECONDS = 400, 3.0
"""Timing settings for each network that the latency model is fitted to."""


class Untrained(NamedTuple):
    """A network that nobody has trained, and how it is exported.

    Attributes:
        image_shape: (channels, height, width).
        keep_float: Globs of the layers that stay in float beside INT8.
    """

    model: ModelConfig
    image_shape: tuple[int, ...]
    num_classes: int
    keep_float: tuple[str, ...]
    export: ExportConfig

    @property
    def built_from(self) -> dict[str, object]:
        """The inputs of every stage that builds this network."""
        return {"model": self.model, "image_shape": self.image_shape, "num_classes": self.num_classes}


class Timed(NamedTuple):
    """A network's latency at the budget's percentile.

    Attributes:
        ms: The ratio to the dense engine in the same turns times that engine's first median, in milliseconds.
        error: Its relative standard error.
        engine_ms: Milliseconds that the engine itself took.
        dense_ms: Milliseconds that the dense engine took in the same turns.
    """

    ms: float
    error: float
    engine_ms: float = math.nan
    dense_ms: float = math.nan


class DeviceTimer:
    """Builds networks of given widths and times them in turns with the dense engine at the target's reference precision.

    Args:
        untrained: The network, whose widths are chosen for each timing.
        timing: The protocol.
        profile: The target, which is in this machine.
        info: The device.
        step: Runs the stages.
        full: Timer of the same network for images of the full size, where these are smaller: the dense engine is that one's.
        at: The profile at one of its points. The profile's own engines are then timed there; None for its own batch and threads.

    Attributes:
        at: The profile as networks are timed: its batch, threads and budget.
        dense_ms: Of that dense engine; known after the first benchmark.
        evidence: The benchmarks.
    """

    __test__ = False  # pytest would take the name for a test's

    def __init__(
        self,
        untrained: Untrained,
        timing: TimingConfig,
        profile: HardwareProfile,
        info: DeviceInfo,
        step: Step,
        full: "DeviceTimer | None" = None,
        at: HardwareProfile | None = None,
    ) -> None:
        self.at = at or profile
        self.evidence: list[Artifact] = []
        self.dense_ms: float = full.dense_ms if full is not None else 0.0
        self._untrained, self._timing = untrained, timing
        self._profile, self._info, self._step = profile, info, step
        self._repeats = 0
        self._spreads: list[float] = []
        self._dense: list[float] = full._dense if full is not None else []
        self._full = full

    def at_points(self) -> "tuple[DeviceTimer, ...]":
        """Return a timer of the same networks for each of the profile's points."""
        shared = (self._untrained, self._timing, self._profile, self._info, self._step)
        return tuple(DeviceTimer(*shared, at=point) for point in self._profile.at_points().values())

    def survey(self, networks: Sequence[Widths], repeat: int = 0) -> list[Timed]:
        """Time several networks in one benchmark of few runs each; another `repeat` opens and times the same engines afresh."""
        timing = self._timing.model_copy(update={"runs": min(self._timing.runs, FEW_RUNS), "seconds": min(self._timing.seconds, FEW_SECONDS)})
        found = self._benchmark(networks, timing=timing, repeat=repeat)
        return [self._timed(found, candidate) for candidate in found.candidates]

    def fit(self, table: LatencyTable, operators: tuple[Operator, ...], options: Options, *, budget: bool = True) -> FittedLatency:
        """Time the dense, the narrowest and some random networks, and fit the latency model to them.

        Args:
            table: Latency table of the operators.
            operators: Those of the dense network.
            options: Widths to choose from.
            budget: Whether `fit_near` follows, which half of the random networks are left for.

        Raises:
            ConfigError: The narrowest network is not faster than the dense one.
        """
        name = self._profile.name
        networks = sample_networks(options, self._fitting - self._fitting // 2 if budget else self._fitting, blocks=blocks_in(operators))
        say(f"{name}: timing {len(networks)} untrained networks to fit the latency model")
        for repeat in range(SURVEYS):
            timed = [(widths, found.ms) for widths, found in zip(networks, self.survey(networks, repeat), strict=True)]
            (_, dense_ms), (_, narrow_ms) = timed[:2]
            if narrow_ms < dense_ms:
                break
        try:
            if narrow_ms >= dense_ms:
                raise ValueError("the narrowest network is not faster than the dense one")
            return FittedLatency(table, operators, timed)
        except ValueError as error:
            raise ConfigError(
                describe(
                    f"profile {name}: {error}",
                    given=f"{narrow_ms:.4g} ms narrow, {dense_ms:.4g} ms dense",
                    allowed="a network with widths to choose from, timed on a machine that is quiet enough",
                    fix="lower prune.floor or channel_multiple, choose a wider network, or try again on a quieter machine",
                )
            ) from error

    def fit_near(self, latency: FittedLatency, options: Options, limit_ms: float) -> FittedLatency:
        """Time the other half of the random networks, all of about the budget's latency, and fit the model for that budget."""
        networks = networks_near(options, latency, limit_ms, self._fitting // 2)
        if not networks:
            return latency
        say(f"{self._profile.name}: timing {len(networks)} untrained networks near the budget")
        return latency.survey([(widths, found.ms) for widths, found in zip(networks, self.survey(networks), strict=True)])

    @property
    def _fitting(self) -> int:
        """Number of random networks that the latency model is fitted to."""
        count = self._timing.fitting
        return count if runtime_of(self._profile.target).measures_operators else min(count, FITTING_DEAR)

    def time(self, widths: Widths, *, limit_ms: float | None = None) -> Timed:
        """Time one network, by the recipe's protocol.

        Args:
            widths: Widths of the network.
            limit_ms: Largest milliseconds for which the exact figure matters: above it fewer runs do. None for all runs.
        """
        found = self._benchmark([widths], timing=self._timing, repeat=0, limit=None if limit_ms is None else limit_ms / self.dense_ms)
        return self._timed(found, found.candidates[0])

    def time_at_pace(self, widths: Widths, limit_ms: float) -> list[Timed]:
        """Time one network, in several processes where it is within a limit: it may be the one that is trained.

        Only processes count in which the dense engine ran at its pace: it is larger, and slower for minutes where neighbours use the machine's caches, while
        the network is as fast as ever, so that their ratio is too low. If there are no two of them, all count.
        """
        timed = [self.time(widths, limit_ms=limit_ms)]
        while not self._at_pace(timed) and len(timed) < TRIES:
            timed.append(self.time_again(widths))
        if (self._at_pace(timed) or timed)[0].ms > limit_ms:
            return self._at_pace(timed) or timed
        while len(self._at_pace(timed)) < FINAL and len(timed) < FINAL + TRIES:
            timed.append(self.time_again(widths))
        calm = self._at_pace(timed)
        return calm if len(calm) > 1 else timed

    def _at_pace(self, timed: Sequence[Timed]) -> list[Timed]:
        pace = float(np.percentile(self._dense, PACE))
        return [one for one in timed if one.dense_ms <= pace * (1 + AT_PACE)]

    def time_again(self, widths: Widths) -> Timed:
        """Time one network as one process of a verdict does, whatever is known of it."""
        self._repeats += 1
        found = self._benchmark([widths], timing=self._timing.in_process(), repeat=self._repeats, limit=None)
        return self._timed(found, found.candidates[0])

    def doubt_of(self, timed: Sequence[Timed]) -> float:
        """Return what the upper end of a verdict's interval is not likely to exceed, over the mean of these timings of one network.

        The verdict has its own error, and these timings have theirs. The spread between processes is that of all networks that were timed several times.
        """
        if len(timed) > 1:
            self._spreads.append(statistics.variance(math.log(one.ms) for one in timed))
        spread = max(math.sqrt(statistics.mean(self._spreads)) if self._spreads else 0.0, LEAST_SPREAD)
        verdict = self._timing.verdict
        half = half_width(verdict.most, spread, looks=len(looks_of(verdict.processes, verdict.most)))
        return math.exp(half + LIKELY * spread * math.sqrt(1 / verdict.most + 1 / FINAL))

    @property
    def doubt(self) -> float:
        """The same for a network that nobody has timed."""
        return self.doubt_of(())

    def build_dense(self) -> Engine:
        """Return the untrained dense engine at the target's reference precision, for images of the full size."""
        target = self._profile.target
        return self._full.build_dense() if self._full is not None else self.build({}, target.at(target.reference))

    def build(self, widths: Widths, target: Target) -> Engine:
        """Return the engine of an untrained network."""
        graph = self.export_dense(target)
        if widths:
            graph = self._step(export_untrained, **self._export(target), plan=WidthPlan(widths=widths), dense=graph)
        return self._step(compile_engine, graph=graph, target=target, info=self._info)

    def export_dense(self, target: Target) -> OnnxGraph:
        """Return the untrained dense network in the form that the target needs."""
        return self._step(export_untrained, **self._export(target), plan=WidthPlan(), dense=None)

    def _export(self, target: Target) -> dict[str, object]:
        form, export = graph_form(target), self._untrained.export
        keep_float = self._untrained.keep_float if form.dialect != "float" else ()
        return {**self._untrained.built_from, "opset": export.opset, **form._asdict(), "keep_float": keep_float, "batch": export.batch_of(target)}

    def _benchmark(self, networks: Sequence[Widths], **protocol: object) -> Benchmark:
        percentile = self.at.budget.percentile
        reference = self.build_dense()
        candidates = tuple(self.build(widths, self._profile.target) for widths in networks)
        shared = {"reference": reference, "target": self.at.target, "image_shape": self._untrained.image_shape, "percentile": percentile}
        found = self._step(benchmark, candidates=candidates, **shared, **protocol)
        self.evidence.append(found)
        self._dense.append(found.reference.at(percentile))
        self.dense_ms = self.dense_ms or self._dense[0]
        return found

    def _timed(self, found: Benchmark, candidate: Candidate) -> Timed:
        """Return a candidate's latency: its ratio to the dense engine timed in the same turns, times that engine's first median.

        A shared machine moves by 30 % between minutes, and the ratio hardly.
        """
        percentile = self.at.budget.percentile
        engine_ms = candidate.latency.at(percentile)
        return Timed(engine_ms / found.reference.at(percentile) * self.dense_ms, candidate.error, engine_ms, found.reference.at(percentile))


def sample_networks(options: Options, count: int, *, blocks: Collection[Block] = ()) -> list[Widths]:
    """Return the dense network, the narrowest, and random ones of the same options, always the same."""
    edges = [{group: pick(widths) for group, widths in options.items()} for pick in (max, min)]
    return edges + random_networks(options, count, seed=0, blocks=blocks)


def random_networks(options: Options, count: int, *, seed: int, blocks: Collection[Block] = ()) -> list[Widths]:
    """Return networks of random options, always the same for a seed. A block of which some group keeps nothing is left out."""
    rng = random.Random(seed)  # noqa: S311  # no secret
    return [whole_blocks({group: rng.choice(list(widths)) for group, widths in options.items()}, blocks) for _ in range(count)]


def networks_near(options: Options, latency: NetworkLatency, limit_ms: float, count: int) -> list[Widths]:
    """Return random networks whose predicted latency is nearest to a limit, always the same; each is narrow or wide in most of its groups."""
    rng = random.Random(1)  # noqa: S311  # no secret
    terms, blocks = latency.terms(options), blocks_in(latency.operators)
    drawn = {}
    for _ in range(DRAWS * count):
        mode = rng.random()
        choice = tuple(min(int(rng.triangular(0, len(widths), mode * len(widths))), len(widths) - 1) for widths in terms.widths)
        widths = whole_blocks(terms.widths_at(np.array(choice)), blocks)
        drawn[tuple(widths.items())] = abs(math.log(max(terms.total(terms.choice(widths)), TINY_MS) / limit_ms))
    return [dict(network) for network in sorted(drawn, key=lambda network: drawn[network])[:count]]
