"""Networks of several inputs, deployed, quantised and pruned in a loop of one's own."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from several_inputs import IMAGES, NUMBERS, OTHERS, Compared, Measured
from torch import nn
from typer.testing import CliRunner

import bonsai
from bonsai.pipeline.cli.main import app
from bonsai.profiles.errors import ConfigError
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.contents import read_any_intact
from bonsai.stages.delivery.deployed import DeployedManifest
from bonsai.stages.delivery.golden import read_golden
from bonsai.stages.delivery.verification import verify_package

pytestmark = pytest.mark.slow  # latency is measured

TIMING = TimingConfig.model_validate({"runs": 400, "block": 25, "warmup_runs": 50, "warmup_seconds": 0.0, "fitting": 8, "tries": 1, "verdict": {"most": 6}})
PRUNE = {"epi.every": 0.08, "epi.window": 1, "epi.monotone": 1, "rounds": 3, "margin": 0.1, "tolerance": 0.15}
POSITIONS, NAMES = (IMAGES, NUMBERS), {"numbers": NUMBERS, "image": IMAGES}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several-inputs")


def arrays(given: Any) -> Any:
    return {name: each.numpy() for name, each in given.items()} if isinstance(given, dict) else tuple(each.numpy() for each in given)


def of(given: Any) -> Any:
    """Return an `evaluate` of a network that takes inputs in this form."""
    return lambda run: run(arrays(given)).argmax(1) == Measured().eval()(IMAGES, NUMBERS).argmax(1).numpy()


@pytest.mark.parametrize("quantised", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(("given", "names"), [(POSITIONS, ["input_0", "input_1"]), (NAMES, ["numbers", "image"])], ids=["tuple", "dict"])
def test_several_inputs_become_inputs_of_the_file_and_of_the_engine(given: Any, names: list[str], quantised: bool, store: Path) -> None:
    dense = Measured().eval()
    network: nn.Module = bonsai.quantize(dense, given, calibration=[given]) if quantised else dense
    settings = {"samples": [given], "latency_ms": 100, "max_drop": 1, "store": store, "timing": TIMING}
    package = bonsai.deploy(network, given, evaluate=of(given), reference=dense, name=f"taken-{names[0]}-{quantised}", **settings)
    assert package.gates[0].verdict == "met"
    assert package.rows[0].score == package.rows[1].score or quantised
    assert package.rows[2].score > 0.9
    model = onnx.load(package.folder / "model.onnx")
    assert [each.name for each in model.graph.input] == names
    assert [each.type.tensor_type.shape.dim[0].dim_param for each in model.graph.input] == ["batch"] * 2
    assert {node.op_type for node in model.graph.node if set(node.input) & set(names)}.isdisjoint({"Slice", "Split", "Reshape"})
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Slice", "Split"})
    session = onnxruntime.InferenceSession(package.folder / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, dict(zip(names, (NUMBERS.numpy(), IMAGES.numpy()) if names[0] == "numbers" else (IMAGES.numpy(), NUMBERS.numpy()), strict=True)))
    expected = dense(IMAGES, NUMBERS).detach().numpy()
    assert np.abs(found[0] - expected).mean() < (0.05 if quantised else 1e-5) * expected.std()
    assert "gives the golden outputs of 3 images" in verify_package(package.folder)[-1]
    manifest = read_any_intact(package.folder)
    assert isinstance(manifest, DeployedManifest)
    assert [(each.name, each.shape) for each in manifest.inputs] == [(name, (3,) if name in {"numbers", "input_1"} else (1, 8, 8)) for name in names]
    order = NAMES.values() if names[0] == "numbers" else POSITIONS
    np.testing.assert_array_equal(read_golden(package.folder)[0], torch.cat([each.flatten(1) for each in order], 1)[:3].numpy())
    card = (package.folder / "MODEL_CARD.md").read_text()
    assert f"- Input `{names[0]}`: float32 (batch, " in card and "the inputs of a sample are flattened and joined in this order" in card
    timed = CliRunner().invoke(app, ["verify", str(package.folder), "--time", "--store", str(store), "--allow-undecided"])
    assert "ms p50, limit 100" in timed.output, timed.output


def test_two_images_and_two_outputs_have_names_and_a_fixed_batch(store: Path) -> None:
    def evaluate(run: Any) -> float:
        found = run((IMAGES.numpy(), OTHERS.numpy()))
        assert {name: value.shape for name, value in found.items()} == {"maps": (32, 16, 4, 4), "same": (32, 2)}
        return float(found["same"].mean())

    settings = {"samples": [(IMAGES, OTHERS)], "latency_ms": 100, "store": store, "timing": TIMING, "name": "two", "dynamic_batch": False}
    package = bonsai.deploy(Compared(), (IMAGES, OTHERS), evaluate=evaluate, inputs=("before", "after"), outputs=("map", "logit"), **settings)
    model = onnx.load(package.folder / "model.onnx")
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["before", "after", "map", "logit"]
    assert [each.type.tensor_type.shape.dim[0].dim_value for each in (*model.graph.input, *model.graph.output)] == [1] * 4
    assert package.rows[0].score == pytest.approx(package.rows[1].score, rel=1e-4)
    assert "gives the golden outputs of 3 images" in verify_package(package.folder)[-1]


def test_a_single_input_may_have_a_name(store: Path) -> None:
    settings = {"samples": IMAGES, "latency_ms": 100, "store": store, "timing": TIMING, "name": "one"}
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten())
    package = bonsai.deploy(network, IMAGES, evaluate=lambda run: float(run(IMAGES.numpy()).mean()), inputs=("pixels",), **settings)
    model = onnx.load(package.folder / "model.onnx")
    assert [(each.name, len(each.type.tensor_type.shape.dim)) for each in model.graph.input] == [("pixels", 4)]
    assert "- Input `pixels`: float32 (batch, 1, 8, 8)" in (package.folder / "MODEL_CARD.md").read_text()
    assert "gives the golden outputs of 3 images" in verify_package(package.folder)[-1]


LARGE = nn.functional.interpolate(IMAGES, size=48)  # the narrowest INT8 network takes a seventh of the dense FP32 one: at 24 pixels a fifth, and in CI more


@pytest.mark.parametrize(("given", "precision"), [({"numbers": NUMBERS, "image": LARGE}, "fp32"), ((LARGE, NUMBERS), "int8")], ids=["dict-float", "tuple-int8"])
def test_a_network_of_several_inputs_is_pruned_to_its_budget(given: Any, precision: str, store: Path) -> None:
    torch.manual_seed(0)
    dense, network = Measured(96), Measured(96)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    labels, steps = (NUMBERS[:, 0] > IMAGES.mean((1, 2, 3))).long(), 60
    settings: dict[str, Any] = {"latency": 0.6 if precision == "fp32" else 0.33, "store": store, "timing": TIMING}  # of the dense FP32 engine's latency
    pruner = bonsai.Pruner(network, optimizer, given, steps=steps, prune=PRUNE, precision=precision, **settings)
    for _ in range(steps):
        found = network(**given) if isinstance(given, dict) else network(*given)
        nn.functional.cross_entropy(found, labels).backward()
        pruner.observe()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    assert pruner.finished
    assert network.body[0].out_channels + network.body[3].out_channels < 192
    shipped: nn.Module = network if precision == "fp32" else bonsai.quantize(network, given, calibration=[given])

    def evaluate(run: Any) -> Any:
        return run(arrays(given)).argmax(1) == labels.numpy()

    package = bonsai.deploy(shipped, given, evaluate=evaluate, samples=[given], reference=dense, max_drop=1, name=f"pruned-{precision}", **settings)
    assert package.rows[2].precision == precision
    assert package.rows[2].parameters < package.rows[0].parameters
    assert package.gates[0].verdict in {"met", "undecided"}, package.gates[0]
    assert abs(package.rows[1].score - package.rows[2].score) < 0.1


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ((IMAGES.numpy(),), "evaluate runs the network on something else"),
        (IMAGES.numpy(), "given: +ndarray"),
        ((NUMBERS.numpy(), IMAGES.numpy()), r"\(32, 3\) float32, \(32, 1, 8, 8\) float32"),
        ((IMAGES.numpy(), NUMBERS.numpy()[:2]), r"\(2, 3\) float32"),
        ((IMAGES.numpy(), NUMBERS.numpy(), NUMBERS.numpy()), "a tuple of floating-point inputs"),
    ],
    ids=["one of two", "no tuple", "in another order", "of another number", "one more"],
)
def test_evaluate_that_gives_other_inputs_is_refused(inputs: Any, told: str, store: Path) -> None:
    settings = {"samples": [POSITIONS], "latency_ms": 100, "store": store, "timing": TIMING}
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        bonsai.deploy(Measured(), POSITIONS, evaluate=lambda run: float(run(inputs).mean()), **settings)


def test_names_of_inputs_that_do_not_fit_are_refused(store: Path) -> None:
    settings: dict[str, Any] = {"samples": [POSITIONS], "latency_ms": 100, "store": store, "timing": TIMING, "evaluate": lambda _: 1.0}
    with pytest.raises(ConfigError, match="the names of the inputs do not fit the network"):
        bonsai.deploy(Measured(), POSITIONS, inputs=("image",), **settings)
    with pytest.raises(ConfigError, match=r"the names of the outputs[\s\S]*1 different names beside `image`, `output`"):
        bonsai.deploy(Measured(), POSITIONS, inputs=("image", "output"), **settings)


def test_arguments_that_forward_does_not_take_are_told(store: Path) -> None:
    given = {"picture": IMAGES, "numbers": NUMBERS}
    with pytest.raises(ConfigError, match="the network does not run on the example input"):
        bonsai.deploy(Measured(), given, evaluate=lambda _: 1.0, samples=[given], latency_ms=100, store=store, timing=TIMING)


def test_the_network_that_was_handed_over_is_left_as_it_was(store: Path) -> None:
    network = Measured().train()
    before = copy.deepcopy(network.state_dict())
    bonsai.deploy(network, POSITIONS, evaluate=lambda _: 1.0, samples=[POSITIONS], latency_ms=100, name="same", store=store, timing=TIMING)
    assert type(network) is Measured and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
