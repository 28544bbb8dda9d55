"""`bonsai characterize`: a device's latency tables of a recipe's network, fitted to whole networks and tried on others."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.device_timing import DeviceTimer, random_networks
from bonsai.pipeline.run.inspecting import Network, inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.targets import untrained_network
from bonsai.profiles.errors import describe
from bonsai.profiles.latency import LatencyTable, Origin
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import HardwareProfile, Precision
from bonsai.profiles.shared_tables import origin_of, require_labels, write_tables
from bonsai.profiles.table_names import SUFFIX
from bonsai.stages.backends.device import STATISTIC, OperatorPoint
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.runtimes import runtime_of
from bonsai.stages.data.registry import source_digest
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.measurement.step_detection import sweep_steps
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.selection.operator_records import blocks_in
from bonsai.stages.steps.characterize import characterize
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store, require_writable_folder

TRIED = 6
"""Number of networks that the latency model is not fitted to; they test it."""


class Characterized(Record):
    """One table.

    Attributes:
        file: The file that it is in, with those of the other precisions.
        steps: Detected step and share of the variance that it explains, by kind of operator and side.
        error: Mean and largest relative error of the predicted latency of networks that the model was not fitted to.
    """

    file: str
    precision: Precision
    device: str
    entries: int
    step: int
    steps: dict[str, tuple[int, float]]
    spread: float
    contention: float | None
    error: tuple[float, float]

    @property
    def wrong_steps(self) -> tuple[str, ...]:
        """Kinds of operators whose detected step is larger than the profile's, so that its widths would lie between two steps."""
        return tuple(kind for kind, (step, share) in self.steps.items() if kind.endswith("out") and share > 0.9 and self.step % step)


def characterize_device(
    recipe: str,
    profile: str | None,
    overrides: Mapping[str, Any],
    *,
    store: Path,
    out: Path,
    name: str | None = None,
    by: str = "",
    detect: bool = True,
) -> list[Characterized]:
    """Measure the tables of a recipe's network on this machine, at FP32 and at the profile's precision, and write them into one file.

    Args:
        recipe: Name or path.
        profile: Name or path; the recipe's own if None.
        overrides: As for `compress`.
        store: Folder of the artifacts, from which a stopped measurement goes on.
        out: Folder of the file.
        name: Name of the file, by which the tables are found; ``RECIPE--PROFILE`` if None.
        by: Who measures; it is written into the file.
        detect: Whether to sweep for the steps of the device's kernels.

    Raises:
        ConfigError: `name` is no name of a file, or `by` cannot be shown as it is.
        DeviceUnavailable: The profile's device is not this machine, or its runtime cannot time single operators.
    """
    require_labels(name, by)
    loaded, (target,) = load(recipe, profile, overrides)
    require_writable_folder(store, "--store")
    require_writable_folder(out, "--out")
    file = out / f"{name or f'{loaded.name}--{target.name}'}{SUFFIX}"
    artifacts = Store(store)
    with artifacts.in_use():
        dataset = artifacts.run(prepare, data=loaded.data, content=source_digest(loaded.data))
        network = inspect_network(loaded, dataset.image_shape, len(dataset.classes))
        precisions: list[Precision] = list(dict.fromkeys(("fp32", *(variant.target.precision for variant in target.variants()))))
        measured = []
        for precision in precisions:
            variant = target.model_copy(update={"target": target.target.model_copy(update={"precision": precision})})
            measured.append(_characterize(loaded, variant, network, artifacts, detect=detect, by=by))
    write_tables(file, [table for table, _ in measured])
    return [_summary(file, table, steps) for table, steps in measured]


def _characterize(
    recipe: Recipe, profile: HardwareProfile, network: Network, store: Store, *, detect: bool, by: str
) -> tuple[LatencyTable, dict[str, tuple[int, float]]]:
    """Return the table of a profile's precision, and the steps of the device's kernels."""
    target, info = profile.target, _require_here(profile)
    options = width_choices(network.groups, recipe.prune, profile)
    untrained = untrained_network(recipe, network)
    keep_float = recipe.quantize.keep_float if target.precision == "int8" else ()
    table = store.run(characterize, **untrained.built_from, target=target, info=info, step=profile.width_step, brought=None, keep_float=keep_float).load(target)
    timer = DeviceTimer(untrained, recipe.timing, profile, info, store.run)
    operators = network.operators_at(target)
    latency = timer.fit(table, operators, options, budget=False)
    fresh = random_networks(options, TRIED, seed=1, blocks=blocks_in(operators))
    errors = [abs(latency(widths) / timed.ms - 1) for widths, timed in zip(fresh, timer.survey(fresh), strict=True)]
    origin = Origin(
        recipe=recipe.name,
        isa=info.isa,
        cores=info.cores,
        system=info.system,
        by=by,
        protocol=f"{STATISTIC} of each operator's runs; fitted to {recipe.timing.fitting + 2} networks, each timed in turns with the dense one",
        error=(statistics.mean(errors), max(errors)),
    )
    meta = latency.table.meta.model_copy(update={"line": latency.line, "origin": origin})
    steps = {}
    if detect:
        device = device_of(target)

        def measure(cls: OperatorClass, ci: int, co: int) -> float:
            (measured,) = device.operators([OperatorPoint(cls, ci, co)], target)
            return measured.entry.p50_us

        steps = sweep_steps(tuple(dict.fromkeys(operator.operator for operator in operators)), measure)
    return LatencyTable(meta, latency.table.entries), steps


def _summary(file: Path, table: LatencyTable, steps: dict[str, tuple[int, float]]) -> Characterized:
    meta = table.meta
    return Characterized(
        file=str(file),
        precision=meta.precision,
        device=meta.device,
        entries=len(table.entries),
        step=meta.step,
        steps=steps,
        spread=meta.spread or 1.0,
        contention=meta.contention,
        error=origin_of(table).error,
    )


def _require_here(profile: HardwareProfile) -> DeviceInfo:
    info = device_of(profile.target).describe(profile.target)
    if not info.present or not runtime_of(profile.target).measures_operators:
        raise DeviceUnavailable(
            describe(
                f"profile {profile.name} cannot be characterised here",
                given=f"{profile.target.device.name}, {profile.target.runtime}",
                allowed="the device itself, with ONNX Runtime or OpenVINO; a GPU's table is estimated, and fitted to whole networks in a run",
                fix="give the profile the device's address (docs/devices.md), or run this on the device, under a profile of `host`",
            )
        )
    return info
