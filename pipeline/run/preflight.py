"""Before training: every file that a profile may ship is exported from the untrained network, opened in ONNX Runtime and built into an engine.

Without this check, the same errors would come after all training. Native code runs in a separate process (`stages/worker.py`), so a file that
crashes it is reported like any other failure. The stages are the ones that candidates are timed with later, so nothing is done twice.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.device_timing import DeviceTimer
from bonsai.pipeline.run.inspecting import Network
from bonsai.pipeline.run.targets import untrained_network
from bonsai.profiles.errors import describe
from bonsai.profiles.schema import HardwareProfile, Precision, Target
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.reference import runtime_here
from bonsai.stages.backends.runtimes import runtime_of
from bonsai.stages.delivery.decisions import Tried
from bonsai.stages.errors import BuildError
from bonsai.stages.steps.run_alone import run_alone
from bonsai.stages.steps.try_open import Opened, try_open
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.training.progress import say


class Failure(NamedTuple):
    """One step that failed for the untrained network.

    Attributes:
        step: Which step failed: "exported", "opened in ONNX Runtime", "built with tensorrt-rtx".
        reason: Message of the library that refused the network.
    """

    precision: Precision
    step: str
    reason: str


class Cleared(NamedTuple):
    """A profile that may be trained for.

    Attributes:
        profile: Without the precisions that failed.
        refused: Those, for the report.
        evidence: Artifacts that were made for the checks.
    """

    profile: HardwareProfile
    refused: tuple[Tried, ...]
    evidence: tuple[Artifact, ...]


def precisions_to_try(profile: HardwareProfile) -> tuple[Precision, ...]:
    """Return the precisions that a profile may ship, and that of its dense reference, each once."""
    candidates = [precision for variant in profile.variants() for precision in variant.target.candidates]
    return tuple(dict.fromkeys([profile.target.reference, *candidates]))


def left_untried(profile: HardwareProfile, info: DeviceInfo) -> tuple[str, ...]:
    """Return what is proven on the device alone, or only when engines are timed."""
    if not info.present:
        return (f"running the engines ({profile.target.device.name} is not in this machine)",)
    return () if profile.target.device.kind == "cpu" else ("running the engines, which are run when they are timed",)


def what_is_tried(profile: HardwareProfile, info: DeviceInfo) -> str:
    """Return what `preflight` would do, for those who only ask."""
    untried = left_untried(profile, info)
    tried = f"{', '.join(precisions_to_try(profile))} exported, opened in ONNX Runtime and built with {profile.target.runs_on}"
    if any(_is_run_alone(one) for one in (profile, *profile.at_points().values())):
        tried += ", run alone for memory and energy"
    return f"{tried}{'; not tried: ' if untried else ''}{'; '.join(untried)}"


def preflight_all(recipe: Recipe, profile: HardwareProfile, networks: Sequence[Network], step: Step) -> Cleared:
    """Try a network at every size of images that it may take, the full one first; arguments and errors as for `preflight`."""
    cleared = Cleared(profile, (), ())
    for network in networks:
        found = preflight(recipe, cleared.profile, network, step)
        cleared = Cleared(found.profile, (*cleared.refused, *found.refused), (*cleared.evidence, *found.evidence))
    return cleared


def preflight(recipe: Recipe, profile: HardwareProfile, network: Network, step: Step) -> Cleared:
    """Try every precision that a profile may ship, and that of the dense reference.

    A precision that fails is left out with a warning if the profile can do without it: a wider candidate, or one of several that
    `search_precision` would choose among.

    Raises:
        BuildError: The profile's own precision fails, the dense reference, or all that it could choose among.
        ConfigError: The runtime cannot do what the profile asks, or the device does not tell a figure that the budget limits.
        DeviceUnavailable: The runtime is not here, or needs the device here.
    """
    started, target, info = time.monotonic(), profile.target, device_of(profile.target).describe(profile.target)
    timer = DeviceTimer(untrained_network(recipe, network), recipe.timing, profile, info, step)
    evidence, failures, untried = list[Artifact](), list[Failure](), list(left_untried(profile, info))
    asked = precisions_to_try(profile)
    for precision in asked:
        found = _try(timer, target.at(precision), step, evidence)
        if isinstance(found, Failure):
            failures.append(found)
        elif found.difference is None:
            untried.append(f"comparing {precision} with torch, since the numbers of the untrained network overflow")
    cleared = _without(profile, failures, asked, recipe.export.opset)
    for one in (cleared, *cleared.at_points().values()) if info.present else ():
        if _is_run_alone(one):
            evidence.append(step(run_alone, engine=timer.build({}, cleared.target), target=one.target, budget=one.budget))
    for failure in failures:
        say(f"warning: {profile.name}: {failure.precision} is left out of this run: the untrained network cannot be {failure.step}: {failure.reason}")
    passed = [precision for precision in asked if precision not in {failure.precision for failure in failures}]
    done = f"{', '.join(passed)} exported, opened and built in {time.monotonic() - started:.1f} s"
    say(f"{profile.name}: preflight: {done}{'; not tried: ' if untried else ''}{'; '.join(untried)}")
    metric = task_named(recipe.task).metric.name
    refused = [Tried.left_out(failure.precision, metric, f"cannot be {failure.step}") for failure in failures]
    return Cleared(cleared, tuple(refused), tuple(evidence))


def _is_run_alone(profile: HardwareProfile) -> bool:
    """Return whether the budget limits what an engine is run alone for."""
    return profile.budget.memory_mb is not None or profile.budget.energy_mj is not None


def _try(timer: DeviceTimer, target: Target, step: Step, evidence: list[Artifact]) -> Opened | Failure:
    """Take the untrained network through every step at one precision; what was made is added to `evidence`."""
    doing = "exported"
    try:
        graph = timer.export_dense(target)
        evidence.append(graph)
        doing = "opened in ONNX Runtime"
        opened = step(try_open, graph=graph, runtime=runtime_here())
        evidence.append(opened)
        doing = f"built with {target.runs_on}"
        evidence.append(timer.build({}, target))
    except BuildError as error:
        return Failure(target.precision, doing, str(error))
    return opened


def _without(profile: HardwareProfile, failures: Sequence[Failure], asked: Sequence[Precision], opset: int) -> HardwareProfile:
    """Return the profile without the precisions that failed.

    Raises:
        BuildError: It cannot do without one of them.
    """
    failed = {failure.precision for failure in failures}
    target = profile.target
    left = tuple(precision for precision in target.precisions if precision not in failed)
    needed = {target.reference} if profile.search_precision and left else {target.reference, target.precision}
    if needed & failed:
        passed = [precision for precision in asked if precision not in failed]
        raise BuildError("\n".join(_message(profile, failure, passed, opset) for failure in failures if failure.precision in needed))
    if not failed:
        return profile
    precision = target.precision if target.precision in left else left[-1]
    return profile.model_copy(update={"target": target.model_copy(update={"precisions": left, "precision": precision})})


def _message(profile: HardwareProfile, failure: Failure, passed: Sequence[Precision], opset: int) -> str:
    target, precision = profile.target, failure.precision
    role = ", the dense reference" if precision == target.reference != target.precision else ""
    fixes = [f"change what is named in the network, or try another export.opset (now {opset})"]
    if failure.step != "exported":
        fixes.append(f"try another version of {'onnxruntime' if failure.step.startswith('opened') else runtime_of(target).package}")
    if precision == "int8":
        fixes.append("leave layers in float with quantize.keep_float")
    if precision == target.precision:
        fixes += [f"ship {other}, which passed: --set profile.target.precision={other}" for other in passed if other in target.precisions]
    elif precision == "fp32" and "fp16" in passed:
        fixes.append("take fp32 from target.precisions: the reference is FP16 then")
    return describe(
        f"profile {profile.name}, {precision}{role}: the untrained network cannot be {failure.step}",
        given=failure.reason.replace("\n", "\n  "),
        allowed="a network that can be exported, opened in ONNX Runtime and built at this precision; this is tried before anything is trained",
        fix="; or ".join(fixes),
    )
