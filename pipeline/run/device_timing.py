"""A target's device as a place to time networks on that nobody has trained: latency depends on the widths alone."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.latency import LatencyTable
from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.engine import DeviceInfo, Engine
from bonsai.stages.backends.runtimes import graph_form, runtime_of
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.measurement.measurements import Benchmark, Candidate
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.groups import WidthPlan, Widths
from bonsai.stages.selection.calibration import calibrate
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operator_records import Operator
from bonsai.stages.selection.terms import Options
from bonsai.stages.steps.benchmark import benchmark
from bonsai.stages.steps.compile import compile as compile_engine
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step
from bonsai.stages.training.progress import say

CALIBRATING_DEAR = 6
"""Most random networks that a latency model is calibrated with where an engine takes long to build."""
SURVEYS = 2
"""Most surveys of the networks that calibrate a latency model. One engine was seen three times as slow for as long as its process held it open."""
FEW_RUNS, FEW_SECONDS = 400, 3.0
"""Timing settings for each network that calibrates the latency model."""


class Untrained(NamedTuple):
    """A network that nobody has trained, and how it is exported.

    Attributes:
        image_shape: (channels, height, width).
        keep_float: Globs of the layers that stay in float beside INT8.
    """

    model: ModelConfig
    image_shape: tuple[int, int, int]
    num_classes: int
    keep_float: tuple[str, ...]
    export: ExportConfig

    @property
    def built_from(self) -> dict[str, object]:
        """The inputs of every stage that builds this network."""
        return {"model": self.model, "image_shape": self.image_shape, "num_classes": self.num_classes}


class Timed(NamedTuple):
    """A network's milliseconds, at the budget's percentile, and their relative standard error."""

    ms: float
    error: float


class DeviceTimer:
    """Builds networks of given widths and times them in turns with the dense engine at the target's reference precision.

    Args:
        untrained: The network, whose widths are chosen for each timing.
        timing: The protocol.
        profile: The target, which is in this machine.
        info: The device.
        step: Runs the stages.

    Attributes:
        dense_ms: Of that dense engine; known after the first benchmark.
        evidence: The benchmarks.
    """

    __test__ = False  # pytest would take the name for a test's

    def __init__(self, untrained: Untrained, timing: TimingConfig, profile: HardwareProfile, info: DeviceInfo, step: Step) -> None:
        self.evidence: list[Artifact] = []
        self.dense_ms = 0.0
        self._untrained, self._timing = untrained, timing
        self._profile, self._info, self._step = profile, info, step
        self._repeats = 0

    def survey(self, networks: Sequence[Widths], repeat: int = 0) -> list[Timed]:
        """Time several networks in one benchmark of few runs each; another `repeat` opens and times the same engines afresh."""
        timing = self._timing.model_copy(update={"runs": min(self._timing.runs, FEW_RUNS), "seconds": min(self._timing.seconds, FEW_SECONDS)})
        found = self._benchmark(networks, timing=timing, repeat=repeat)
        return [self._timed(found, candidate) for candidate in found.candidates]

    def calibrate(self, table: LatencyTable, operators: tuple[Operator, ...], options: Options) -> NetworkLatency:
        """Time the dense, the narrowest and some random networks, and fit the latency model to them.

        Raises:
            ConfigError: The narrowest network is not faster than the dense one.
        """
        name = self._profile.name
        count = self._timing.calibrating
        networks = sample_networks(options, count if runtime_of(self._profile.target).measures_operators else min(count, CALIBRATING_DEAR))
        say(f"{name}: timing {len(networks)} untrained networks to calibrate the latency table")
        for repeat in range(SURVEYS):
            timed = [(widths, found.ms) for widths, found in zip(networks, self.survey(networks, repeat), strict=True)]
            (_, dense_ms), (_, narrow_ms) = timed[:2]
            if narrow_ms < dense_ms:
                break
        try:
            if narrow_ms >= dense_ms:
                raise ValueError("the narrowest network is not faster than the dense one")
            return calibrate(table, operators, timed)
        except ValueError as error:
            raise ConfigError(
                describe(
                    f"profile {name}: {error}",
                    given=f"{narrow_ms:.4g} ms narrow, {dense_ms:.4g} ms dense",
                    allowed="a network with widths to choose from, timed on a machine that is quiet enough",
                    fix="lower prune.floor or channel_multiple, choose a wider network, or try again on a quieter machine",
                )
            ) from error

    def time(self, widths: Widths, *, window_ms: tuple[float, float] | None = None) -> Timed:
        """Time one network, by the recipe's protocol.

        Args:
            widths: Widths of the network.
            window_ms: Least and largest milliseconds for which the exact figure matters: outside of them fewer runs do. None for all runs.
        """
        bounds = None if window_ms is None else (window_ms[0] / self.dense_ms, window_ms[1] / self.dense_ms)
        found = self._benchmark([widths], timing=self._timing, repeat=0, bounds=bounds)
        return self._timed(found, found.candidates[0])

    def time_again(self, widths: Widths) -> Timed:
        """Time one network in a benchmark of its own, whatever is known of it."""
        self._repeats += 1
        found = self._benchmark([widths], timing=self._timing, repeat=self._repeats, bounds=None)
        return self._timed(found, found.candidates[0])

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
        target = self._profile.target
        reference = self.build({}, target.at(target.reference))
        candidates = tuple(self.build(widths, target) for widths in networks)
        shared = {"reference": reference, "target": target, "image_shape": self._untrained.image_shape, "percentile": self._profile.budget.percentile}
        found = self._step(benchmark, candidates=candidates, **shared, **protocol)
        self.evidence.append(found)
        self.dense_ms = self.dense_ms or found.reference.at(self._profile.budget.percentile)
        return found

    def _timed(self, found: Benchmark, candidate: Candidate) -> Timed:
        """Return a candidate's latency: its ratio to the dense engine timed in the same turns, times that engine's first median.

        A shared machine moves by 30 % between minutes, and the ratio hardly.
        """
        percentile = self._profile.budget.percentile
        return Timed(candidate.latency.at(percentile) / found.reference.at(percentile) * self.dense_ms, candidate.error)


def sample_networks(options: Options, count: int) -> list[Widths]:
    """Return the dense network, the narrowest, and random ones of the same options, always the same."""
    edges = [{group: pick(widths) for group, widths in options.items()} for pick in (max, min)]
    return edges + random_networks(options, count, seed=0)


def random_networks(options: Options, count: int, *, seed: int) -> list[Widths]:
    """Return networks of random options, always the same for a seed."""
    rng = random.Random(seed)  # noqa: S311  # no secret
    return [{group: rng.choice(list(widths)) for group, widths in options.items()} for _ in range(count)]
