"""A plain PyTorch loop on real digits, what eight changed lines of it lead to, and everything that `deploy` refuses."""

import copy
import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import bonsai
from bonsai.pipeline.cli.main import app
from bonsai.profiles.errors import ConfigError
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.contents import read_any_intact, read_intact
from bonsai.stages.delivery.deployed import DeployedManifest
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.errors import BuildError, DeviceUnavailable, VerificationError
from bonsai.stages.measurement.scores import NO_INTERVAL

pytestmark = pytest.mark.slow  # latency is measured

TIMING = TimingConfig.model_validate({"runs": 400, "block": 25, "warmup_runs": 50, "warmup_seconds": 0.0, "fitting": 8, "tries": 1, "verdict": {"most": 6}})
PRUNE = {"epi.every": 0.08, "epi.window": 1, "epi.monotone": 1, "rounds": 3, "margin": 0.1, "tolerance": 0.15}
LOOP = """
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
digits = load_digits()
images = nn.functional.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=24)
loader = DataLoader(TensorDataset(images[:1400], torch.tensor(digits.target)[:1400]), batch_size=50, shuffle=True)
layers = [nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU()]
layers += [nn.Conv2d(96, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
model = nn.Sequential(*layers)
optimizer = torch.optim.Adam(model.parameters(), lr=0.004)
for epoch in range(EPOCHS):
    for inputs, targets in loader:
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
"""
IMPORT = ("import torch\n", "import bonsai\nimport torch\n")
PRUNER = ("for epoch", "pruner = bonsai.Pruner(model, optimizer, images[:2], latency_ms=MS, steps=EPOCHS * len(loader), **PRUNING)\nfor epoch")
OBSERVE = ("        optimizer.step()\n", "        pruner.observe()\n        optimizer.step()\n")
STEP = ("        optimizer.zero_grad()\n", "        optimizer.zero_grad()\n        pruner.step()\n")
QUANTIZE = "model = bonsai.quantize(model, images[:2], calibration=loader)\n"
HITS = "evaluate = lambda run: run(images[1400:].numpy()).argmax(1) == digits.target[1400:]\n"
SHARE = "evaluate = lambda run: (run(images[1400:].numpy()).argmax(1) == digits.target[1400:]).mean()\n"
DEPLOY = "package = bonsai.deploy(model, images[:2], latency_ms=MS, evaluate=evaluate, samples=loader, reference=DENSE, **OPTIONS)\n"


def changed(*ends: str) -> str:
    """Return the loop with Bonsai in it, in eight lines at most."""
    text = LOOP
    for line, lines in (IMPORT, PRUNER, OBSERVE, STEP):
        assert text.count(line) == 1
        text = text.replace(line, lines)
    text += "".join(ends)
    differing = [line for line in difflib.ndiff(LOOP.splitlines(), text.splitlines()) if line.startswith(("+", "-"))]
    assert len(differing) <= 8
    return text


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own-loop")


@pytest.fixture(scope="module")
def dense(store: Path) -> tuple[nn.Module, dict[str, float]]:
    """Return the network that the unchanged loop trains, and what its engines measure in milliseconds, by precision."""
    space: dict[str, Any] = {"EPOCHS": 5}
    exec(LOOP, space)
    network, images = space["model"], space["images"]
    quantised = bonsai.quantize(network, images[:2], calibration=space["loader"])
    made = {
        name: bonsai.deploy(each, images[:2], latency_ms=1000, evaluate=lambda _: 1.0, samples=images, name=name, store=store, timing=TIMING)
        for name, each in (("fp32", network), ("int8", quantised))
    }
    latencies = {name: package.rows[-1].latency for name, package in made.items()}
    return network, {name: latency.p50 for name, latency in latencies.items() if latency is not None}


@pytest.mark.parametrize(
    ("ends", "precision", "has_interval"),
    [((QUANTIZE, HITS, DEPLOY), "int8", True), ((QUANTIZE, SHARE, DEPLOY), "int8", False), ((HITS, DEPLOY), "fp32", True)],
    ids=["int8", "one number", "float"],
)
def test_a_loop_ends_with_an_engine_within_its_milliseconds(
    ends: tuple[str, ...], precision: str, has_interval: bool, store: Path, dense: tuple[nn.Module, dict[str, float]]
) -> None:
    network, milliseconds = dense
    budget = 0.75 * milliseconds[precision]  # the narrowest network takes 0.28 of the dense one's time in INT8 on a Xeon with AMX
    common = {"store": store, "timing": TIMING}
    # so many epochs that even a network of 5,000 parameters learns: on a busy machine the timing of such small engines may ask for one
    space = {"EPOCHS": 24, "MS": budget, "DENSE": network, "OPTIONS": {**common, "max_drop": 0.3, "name": "digits"}}
    space["PRUNING"] = {**common, "prune": PRUNE, "precision": precision}
    exec(changed(*ends), space)
    package: Any = space["package"]
    latency, drop = package.gates[:2]
    assert (latency.name, latency.verdict, latency.limit) == ("latency", "met", pytest.approx(budget))
    assert (drop.name, drop.low is not None, drop.note == NO_INTERVAL) == ("accuracy drop", has_interval, not has_interval)
    assert [row.what for row in package.rows] == ["dense engine", "torch", "shipped engine"]
    assert package.rows[-1].precision == precision
    assert package.rows[-1].parameters < package.rows[0].parameters
    assert abs(package.rows[1].score - package.rows[2].score) < 0.02
    assert package.rows[-1].score > 0.6
    assert package.passed
    lines = verify_package(package.folder)
    assert "gives the golden outputs of 3 images" in lines[-1]
    manifest = read_any_intact(package.folder)
    assert isinstance(manifest, DeployedManifest)
    assert manifest.rows == package.rows
    assert any(ancestor.artifact.startswith("time_engine/") for ancestor in manifest.lineage)
    card = (package.folder / "MODEL_CARD.md").read_text()
    assert card.startswith("# digits\n\nAll gates are met.")
    assert ("no interval" in card) != has_interval


class Pair(nn.Module):
    """A small network of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.maps, self.scores = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()), nn.Conv2d(16, 4, 1), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.body(x)
        return {"maps": self.maps(x), "scores": self.scores(x.mean((2, 3)))}


IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def score_of_both(run: Callable[[Any], Any]) -> np.ndarray:
    found = run(IMAGES.numpy())
    assert {name: (value.shape, value.dtype.name) for name, value in found.items()} == {"maps": ((32, 4, 8, 8), "float32"), "scores": ((32, 3), "float32")}
    return np.asarray(found["scores"][:, 0] > found["maps"].mean((1, 2, 3)))


@pytest.mark.parametrize("quantised", [False, True], ids=["float", "int8"])
def test_several_outputs_have_names_and_no_operators_that_join_them(quantised: bool, store: Path) -> None:
    network: nn.Module = Pair()
    if quantised:
        network = bonsai.quantize(network, IMAGES, calibration=IMAGES)
    package = bonsai.deploy(
        network,
        IMAGES,
        evaluate=score_of_both,
        samples=IMAGES,
        latency_ms=100,
        reference=Pair(),
        outputs=("heat", "logit"),
        dynamic_batch=False,
        max_drop=1,
        name="pair",
        store=store,
        timing=TIMING,
    )
    assert package.gates[0].verdict == "met"
    model = onnx.load(package.folder / "model.onnx")
    assert [output.name for output in model.graph.output] == ["heat", "logit"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Concat", "Split"})
    assert [output["shape"] for output in json.loads((package.folder / "manifest.json").read_text())["outputs"]] == [[4, 8, 8], [3]]
    assert "gives the golden outputs of 3 images" in verify_package(package.folder)[-1]


def test_a_package_is_told_apart_from_a_runs_and_timed_again(store: Path) -> None:
    given: dict[str, Any] = {
        "evaluate": score_of_both,
        "samples": IMAGES,
        "reference": Pair(),
        "latency": 1.0,
        "name": "told",
        "store": store,
        "timing": TIMING,
    }
    package = bonsai.deploy(Pair(), IMAGES, **given)
    timed = CliRunner().invoke(app, ["verify", str(package.folder), "--time", "--store", str(store), "--allow-undecided"])
    assert "of dense FP32 p50, limit 1" in timed.output
    with pytest.raises(VerificationError, match=r"made by bonsai.deploy, so it has no recipe"):
        read_intact(package.folder)
    for command in (["predict", str(package.folder), "x.png"], ["report", str(package.folder), "--out", str(store / "report")]):
        refused = CliRunner().invoke(app, command)
        assert isinstance(refused.exception, VerificationError)
    again = bonsai.deploy(Pair(), IMAGES, **given)
    assert again.gates == package.gates  # the same engines are not timed until they pass
    (package.folder / "engine.onnx").write_bytes(b"")
    with pytest.raises(VerificationError, match="sha256"):
        verify_package(package.folder)


def test_without_a_reference_the_verdict_says_that_no_drop_is_judged(store: Path) -> None:
    package = bonsai.deploy(Pair(), IMAGES, evaluate=lambda _: 3.0, higher_is_better=False, samples=IMAGES, latency_ms=100, store=store, timing=TIMING)
    assert package.passed
    assert [gate.name for gate in package.gates] == ["latency"]
    assert package.warnings == ("No dense reference was given, so no drop of the score is judged.",)
    assert package.warnings[0] in (package.folder / "MODEL_CARD.md").read_text()
    assert package.folder == store / "packages" / "model"


class Drawing(Pair):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().forward(x + 0.1 * torch.rand_like(x))


def raising(_: object) -> float:
    raise KeyError("labels")


def of_two_kinds() -> Callable[[object], object]:
    found = iter([np.ones(32), 0.5])
    return lambda _: next(found)


def quantised_for(dialect: str) -> nn.Module:
    made = bonsai.quantize(Pair(), IMAGES, calibration=IMAGES)
    made.meta["quantizers"] = made.meta["quantizers"].model_copy(update={"dialect": dialect})
    return made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": lambda: nn.DataParallel(Pair())}, "the model is in a wrapper"),
        ({"model": lambda: Pair().half()}, "the model has no weights in FP32"),
        ({"model": Drawing}, "random numbers in evaluation"),
        ({"model": lambda: quantised_for("trt")}, "quantised for another family of runtimes"),
        ({"example_input": torch.zeros(2, 8)}, "does not run on the example input|samples has no input"),
        ({"example_input": (IMAGES, IMAGES)}, "a tuple of the floating-point tensors"),
        ({"evaluate": raising}, r"evaluate raised an error with the torch network[\s\S]*KeyError: 'labels' \(test_own_loop_deploy"),
        ({"evaluate": lambda _: "good"}, "evaluate returned no score"),
        ({"evaluate": lambda run: run(np.zeros((2, 3, 8, 8), np.float32)).mean()}, r"evaluate runs the network on something else[\s\S]*\(2, 3, 8, 8\)"),
        ({"evaluate": of_two_kinds()}, "32 values and then one number"),
        ({"latency": 0.5, "latency_ms": None}, "a fraction needs the dense network"),
        ({"latency": 0.5}, "a budget has one unit"),
        ({"latency_ms": None}, "latency=0.25 and no reference"),
        ({"max_drop": 0.1}, "max_drop needs the dense network"),
        ({"max_drop": -0.1, "reference": Pair()}, "no allowed drop"),
        ({"reference": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}, "no dense form of the model"),
        ({"samples": IMAGES[:2]}, "samples are too few"),
        ({"outputs": ("maps",)}, "the names of the outputs do not fit"),
        ({"outputs": ("input", "scores")}, "the names of the outputs do not fit"),
        ({"precision": "int8"}, "a float network has no engine of this precision"),
        ({"name": "../elsewhere"}, "cannot have this name"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str, store: Path) -> None:
    given = {
        "example_input": IMAGES,
        "evaluate": lambda _: 1.0,
        "samples": IMAGES,
        "latency_ms": 100,
        "store": store,
        "timing": TIMING,
        "name": "refused",
    } | change
    model = given.pop("model", Pair)()
    with pytest.raises(ConfigError, match=said):
        bonsai.deploy(model, given.pop("example_input"), **given)
    assert not (store / "packages" / "refused").exists()


def test_a_folder_that_is_no_package_is_not_replaced(tmp_path: Path, store: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else in the package's place"):
        bonsai.deploy(Pair(), IMAGES, evaluate=score_of_both, samples=IMAGES, latency_ms=100, out=tmp_path, store=store)
    assert (tmp_path / "model" / "thesis.txt").read_text() == "mine"


def test_a_device_that_is_not_here_is_refused(store: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="cannot be measured here"):
        bonsai.deploy(Pair(), IMAGES, evaluate=score_of_both, samples=IMAGES, target="cortex-a76", latency_ms=100, store=store)


def test_an_engine_that_mixes_the_batch_leaves_no_package(tmp_path: Path, store: Path) -> None:
    class Mixing(Pair):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return super().forward(x - x.mean(0, keepdim=True))

    with pytest.raises(BuildError, match="on 3 images at once instead of alone"):
        bonsai.deploy(Mixing(), IMAGES, evaluate=lambda _: 1.0, samples=IMAGES, latency_ms=100, out=tmp_path, store=store, timing=TIMING)
    assert not (tmp_path / "model").exists()


def test_networks_that_are_handed_over_stay_as_they_were(store: Path) -> None:
    network = Pair().train()
    before = copy.deepcopy(network.state_dict())
    bonsai.deploy(network, IMAGES, evaluate=score_of_both, samples=IMAGES, latency_ms=100, reference=network, name="same", store=store, timing=TIMING)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
