import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_device import ScriptedDevice, use

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.inspecting import Network
from bonsai.pipeline.run.preflight import precisions_to_try, preflight, what_is_tried
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.errors import BuildError, DeviceUnavailable
from bonsai.stages.steps.try_open import Opened
from bonsai.stages.store.artifact import Artifact

NETWORK = Network((3, 16, 16), 10, (), ())
FORMS = {("float", "fp32"): "fp32", ("float", "fp16"): "fp16", ("trt", "fp16"): "int8", ("ort", "fp32"): "int8"}
STAGES = {"exported": "export_untrained", "opened": "try_open", "built": "compile"}


@pytest.fixture(autouse=True)
def every_runtime_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    use(ScriptedDevice(), monkeypatch)


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("resnet-edge")


class FailingStep:
    """Runs nothing; the stages named fail at the precisions named."""

    def __init__(self, failing: dict[str, str], *, difference: float | None = 0.0, error: type[Exception] = BuildError) -> None:
        self.failing, self.difference, self.error = failing, difference, error
        self.called: list[tuple[str, str]] = []
        self.precision = ""

    def __call__(self, stage: Callable[..., Any], /, **inputs: Any) -> Any:
        if stage.__name__ == "export_untrained":
            self.precision = FORMS[inputs["dialect"], inputs["float_type"]]
        self.called.append((stage.__name__, self.precision))
        if self.failing.get(self.precision) == stage.__name__:
            raise self.error(f"no kernel\nfor {self.precision}")
        folder = Path(f"{stage.__name__}-{self.precision}")
        return Opened(folder=folder, difference=self.difference) if stage.__name__ == "try_open" else Artifact(folder=folder)


def profile_of(name: str, **changes: Any) -> HardwareProfile:
    profile = load_profile(name)
    target = profile.target.model_copy(update={key: value for key, value in changes.items() if key != "search_precision"})
    return profile.model_copy(update={"target": target, "search_precision": changes.get("search_precision", False)})


def test_every_precision_that_may_ship_and_the_reference_are_tried_once(recipe: Recipe) -> None:
    step = FailingStep({})
    profile = profile_of("rtx-4090", precision="int8", precisions=("fp32", "fp16", "int8"))
    cleared = preflight(recipe, profile, NETWORK, step)
    assert cleared.profile == profile
    assert cleared.refused == ()
    assert [called for called in step.called if called[0] == "try_open"] == [("try_open", p) for p in ("fp32", "fp16", "int8")]
    assert [called for called in step.called if called[0] == "compile"] == [("compile", p) for p in ("fp32", "fp16", "int8")]
    assert [artifact.folder.name for artifact in cleared.evidence] == [f"{s}-{p}" for p in ("fp32", "fp16", "int8") for s in STAGES.values()]
    assert precisions_to_try(profile_of("rtx-4090", precision="fp16", precisions=("fp16", "int8"))) == ("fp16",)
    assert precisions_to_try(profile_of("local-cpu", precision="int8", precisions=("int8",))) == ("fp32", "int8")


@pytest.mark.parametrize("told", STAGES)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_precision_that_a_profile_needs_ends_it_with_the_step_and_the_reason(recipe: Recipe, told: str, precision: str) -> None:
    with pytest.raises(BuildError, match=f"profile local-cpu, {precision}.*: the untrained network cannot be {told}") as raised:
        preflight(recipe, profile_of("local-cpu", precision="int8"), NETWORK, FailingStep({precision: STAGES[told]}))
    assert raised.value.exit_code == 4
    assert "given:   no kernel\n  for" in str(raised.value)
    assert ("the dense reference" in str(raised.value)) == (precision == "fp32")
    assert ("ship fp32, which passed: --set profile.target.precision=fp32" in str(raised.value)) == (precision == "int8")
    assert ("quantize.keep_float" in str(raised.value)) == (precision == "int8")


def test_a_wider_candidate_that_fails_is_left_out_with_a_warning(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    profile = profile_of("rtx-4090", precision="int8", precisions=("fp32", "fp16", "int8"))
    with caplog.at_level(logging.INFO, logger="bonsai"):
        cleared = preflight(recipe, profile, NETWORK, FailingStep({"fp16": "compile"}))
    assert cleared.profile.target.candidates == ("fp32", "int8")
    assert cleared.profile.target.precision == "int8"
    assert [(tried.precision, tried.outcome) for tried in cleared.refused] == [("fp16", "cannot be built with tensorrt-rtx")]
    assert caplog.messages[-2].startswith("warning: rtx-4090: fp16 is left out of this run: the untrained network cannot be built with tensorrt-rtx: no kernel")
    assert "preflight: fp32, int8 exported, opened and built in" in caplog.messages[-1]
    assert "not tried: running the engines (GeForce RTX 4090 is not in this machine)" in caplog.messages[-1]


def test_a_search_goes_on_without_its_own_precision(recipe: Recipe) -> None:
    profile = profile_of("rtx-4090", precision="int8", precisions=("fp32", "fp16", "int8"), search_precision=True)
    cleared = preflight(recipe, profile, NETWORK, FailingStep({"int8": "export_untrained"}))
    assert [variant.target.precision for variant in cleared.profile.variants()] == ["fp32", "fp16"]
    assert cleared.profile.target.precision == "fp16"
    with pytest.raises(BuildError, match="profile rtx-4090, fp32"):
        preflight(recipe, profile, NETWORK, FailingStep({"fp32": "export_untrained"}))


def test_numbers_that_overflow_untrained_are_told_and_prove_nothing(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bonsai"):
        preflight(recipe, profile_of("local-cpu", precision="fp32"), NETWORK, FailingStep({}, difference=None))
    assert caplog.messages[-1].endswith("; not tried: comparing fp32 with torch, since the numbers of the untrained network overflow")


def test_what_is_no_fault_of_the_network_is_raised_as_it_is(recipe: Recipe) -> None:
    with pytest.raises(DeviceUnavailable, match=r"^no kernel"):
        preflight(recipe, profile_of("local-cpu"), NETWORK, FailingStep({"fp32": "compile"}, error=DeviceUnavailable))


def test_a_dry_run_says_what_would_be_tried() -> None:
    profile = profile_of("rtx-4090", precision="int8")
    said = what_is_tried(profile, ScriptedDevice().describe(profile.target))
    assert said == (
        "fp32, fp16, int8 exported, opened in ONNX Runtime and built with tensorrt-rtx; "
        "not tried: running the engines (GeForce RTX 4090 is not in this machine)"
    )
