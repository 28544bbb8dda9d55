"""What the stage `quantize` does when: every way through its policy, with real training."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.registry import check_target
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.names import MODEL
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, load_network, load_quantised
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.config import RegulariserConfig
from bonsai.stages.quantization.config import QuantizeConfig
from bonsai.stages.quantization.summary import summarise
from bonsai.stages.steps.compile import compile as compile_engine
from bonsai.stages.steps.export import export
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.quantize import quantize
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.batches import load_split
from bonsai.stages.training.config import TrainConfig

pytestmark = pytest.mark.slow  # trainings and exports

ORT = {"dialect": "ort", "float_type": "fp32", "batch": None}
TRAINING = TrainConfig(epochs=12, batch_size=64, lr=0.05, warmup_epochs=0.5, threads=1)
SENSITIVE, BEFORE = "layer2.0.conv2", "layer2.0.bn1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("quantize"))


@pytest.fixture(scope="module")
def trained(shared: Store, digits: Dataset) -> Checkpoint:
    stop = TRAINING.epochs * (digits.sizes["train"] // TRAINING.batch_size)
    model = ModelConfig(name="resnet8", options={"width": 8})
    initial = shared.run(initialise, dataset=digits, model=model, weights=None)
    return shared.run(train_dense, dataset=digits, training=TRAINING, regulariser=RegulariserConfig(), regularised=(), previous=initial, stop=stop)


@pytest.fixture(scope="module")
def sensitive(trained: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The same network, but one convolution reads a dead channel with huge weights: at 8 bits its other weights round to 0."""
    folder = tmp_path_factory.mktemp("sensitive")
    weights = load_file(trained.folder / WEIGHTS)
    for name in ("weight", "bias"):
        weights[f"{BEFORE}.{name}"][0] = 0
    weights[f"{SENSITIVE}.weight"][:, 0] = 1000
    save_file(weights, folder / WEIGHTS)
    return trained.model_copy(update={"folder": folder, "digest": "sensitive"})


def quantised(store: Store, pruned: Checkpoint, dataset: Dataset, bits: int = 8, **settings: object) -> Checkpoint:
    config = QuantizeConfig(**{"lr": 0.01, "epochs": 2, "calibration_batches": 2, **settings})
    return store.run(quantize, pruned=pruned, dataset=dataset, training=TRAINING, config=config, dialect="ort", weight_bits=bits)


def top1(found: Checkpoint, name: str) -> float:
    return found.metrics[f"validation_top1_{name}"]


def test_qat_is_skipped_where_calibration_is_enough(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, trained, digits)
    assert found.quantization.kept == "ptq"
    assert "validation_top1_qat" not in found.metrics
    assert (found.step, found.history) == (trained.step, trained.history)
    assert top1(found, "float") - top1(found, "ptq") <= 0.01
    assert "kept: PTQ. QAT was skipped: PTQ costs no more than 0.01." in summarise(found, CLASSIFICATION.metric)


def test_qat_runs_where_calibration_is_not_enough(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, trained, digits, bits=2, frozen_epochs=0)
    assert top1(found, "float") - top1(found, "ptq") > 0.01
    assert top1(found, "qat") > top1(found, "ptq")
    assert (found.quantization.kept, found.quantization.weights) == ("qat", "qat")
    assert [line.phase for line in found.history[-2:]] == ["qat", "qat"]
    assert f"QAT {top1(found, 'qat'):.4f}; kept: QAT." in summarise(found, CLASSIFICATION.metric)


def test_every_quantised_network_can_be_loaded_again(shared: Store, trained: Checkpoint, sensitive: Checkpoint, digits: Dataset) -> None:
    images, labels = load_split(digits, "validation")

    def accuracies(found: Checkpoint) -> dict[str, float]:
        with torch.no_grad():
            return {how: float((network.eval()(images).argmax(1) == labels).float().mean()) for how, network in load_quantised(found).items()}

    tuned, mixed = quantised(shared, trained, digits, bits=2, qat="always"), quantised(shared, sensitive, digits, qat="never", mixed={"images": 128})
    assert accuracies(tuned) == pytest.approx({"ptq": top1(tuned, "ptq"), "qat": top1(tuned, "qat")})
    assert accuracies(mixed) == pytest.approx({"ptq": top1(mixed, "ptq"), "mixed": top1(mixed, "mixed")})


def test_qat_runs_where_the_recipe_asks_for_it(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, trained, digits, qat="always")
    assert found.history[-1].phase == "qat"
    assert top1(found, "qat") >= top1(found, "float") - 0.02
    assert found.quantization.kept == ("qat" if top1(found, "qat") >= top1(found, "ptq") else "ptq")  # an image decides, and the machine's arithmetic


def test_without_qat_what_is_missing_is_said(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, trained, digits, bits=2, qat="never")
    assert found.quantization.kept == "ptq"
    assert "validation_top1_qat" not in found.metrics
    drop = top1(found, "float") - top1(found, "ptq")
    assert "QAT was skipped: the recipe asks for none." in summarise(found, CLASSIFICATION.metric)
    assert f"That is {drop:.4f} below float, where the recipe allows 0.01." in summarise(found, CLASSIFICATION.metric)


def test_the_calibrated_network_is_kept_where_qat_ends_lower(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    calibrated = quantised(shared, trained, digits)
    found = quantised(shared, trained, digits, qat="always", lr=1.0, epochs=1, frozen_epochs=0)
    assert top1(found, "qat") < top1(found, "ptq")
    assert (found.quantization.kept, found.quantization.weights) == ("ptq", "ptq")
    expected, weights = load_file(calibrated.folder / WEIGHTS), load_file(found.folder / WEIGHTS)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_distillation_trains_another_network(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    plain = quantised(shared, trained, digits, qat="always")
    found = quantised(shared, trained, digits, qat="always", distill={"weight": 0.7, "temperature": 2.0})
    assert found.history[-1].loss != plain.history[-1].loss
    assert top1(found, "float") - top1(found, "qat") <= 0.02


def test_the_one_sensitive_layer_is_found_and_kept_in_float(shared: Store, sensitive: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, sensitive, digits, qat="never", mixed={"images": 128})
    assert top1(found, "float") - top1(found, "ptq") > 0.1
    assert top1(found, "float") - top1(found, "mixed") <= 0.01
    assert (found.quantization.kept, found.quantization.weights) == ("mixed", "ptq")
    assert found.quantization.searched == found.quantizers.kept_float == (SENSITIVE,)
    first, second = found.quantization.sensitivities[:2]
    assert first.layer == SENSITIVE
    assert min(first.alone, first.gain) > 10 * second.noise
    assert len(found.quantization.sensitivities) == 10
    told = f"the most sensitive first (in brackets what each costs as INT8: squared error of the outputs over their square): {SENSITIVE} ("
    assert told in summarise(found, CLASSIFICATION.metric)


def test_the_search_falls_back_on_the_weights_of_calibration(shared: Store, sensitive: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, sensitive, digits, lr=0.001, mixed={"images": 128})
    assert top1(found, "ptq") < top1(found, "qat") < top1(found, "float") - 0.02  # how far QAT recovers depends on the machine's arithmetic
    assert (found.quantization.kept, found.quantization.weights) == ("mixed", "ptq")
    assert found.quantization.searched == (SENSITIVE,)


def test_a_search_in_vain_leaves_everything_quantised_and_says_so(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, trained, digits, bits=2, qat="never", mixed={"images": 64, "max_layers": 1})
    assert found.quantization.kept == "ptq"
    assert found.quantization.searched == found.quantizers.kept_float == ()
    assert len(found.quantization.sensitivities) == 10
    assert top1(found, "mixed") < top1(found, "float") - 0.01
    assert "kept: PTQ" in summarise(found, CLASSIFICATION.metric)
    assert "below float, where the recipe allows 0.01." in summarise(found, CLASSIFICATION.metric)


def test_the_search_does_not_run_where_it_is_not_needed(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, trained, digits, mixed={})
    assert "validation_top1_mixed" not in found.metrics
    assert found.quantization.sensitivities == ()


@pytest.mark.parametrize("bits", [8, 2])
def test_a_checkpoint_with_layers_in_float_loads_as_it_was_kept(shared: Store, trained: Checkpoint, digits: Dataset, bits: int) -> None:
    found = quantised(shared, trained, digits, bits=bits, keep_float=("conv1", "fc"))
    assert found.quantizers.kept_float == ("conv1", "fc")
    network = load_network(found)
    images = load_file(digits.folder / "validation.safetensors")
    logits = network.eval()((images["images"].float() / 255 - 0.5) / 0.5)
    assert float((logits.argmax(1) == images["labels"]).float().mean()) == pytest.approx(top1(found, found.quantization.kept))
    assert "In float by the recipe: conv1, fc." in summarise(found, CLASSIFICATION.metric)


def test_the_engine_runs_every_other_convolution_as_int8(shared: Store, trained: Checkpoint, digits: Dataset) -> None:
    target = load_profile("local-cpu").target
    kept = ("conv1", "layer2.0.conv1")
    graph = shared.run(export, checkpoint=quantised(shared, trained, digits, keep_float=kept), dataset=digits, config=ExportConfig(), **ORT)
    engine = shared.run(compile_engine, graph=graph, target=target, info=check_target(target))
    assert (engine.coverage["float_convolutions"], engine.coverage["int8_convolutions"]) == (2, 7)
    assert engine.coverage["int8_additions"] == 3


def test_the_sensitive_layer_is_in_float_in_the_engine_too(shared: Store, sensitive: Checkpoint, digits: Dataset) -> None:
    found = quantised(shared, sensitive, digits, qat="never", mixed={"images": 128})
    graph = shared.run(export, checkpoint=found, dataset=digits, config=ExportConfig(), **ORT)
    assert graph.parity["agreement"] > 0.98
    assert graph.parity["mean_difference"] < 0.02 * graph.parity["spread"]


@pytest.mark.parametrize("dialect", ["ort", "trt"])
@pytest.mark.parametrize("kept", [("conv1",), ("layer1.0.conv2", "fc"), ("layer2.0.shortcut.0", "layer3.*.conv1")], ids=str)
def test_layers_in_float_are_exported_as_such(shared: Store, trained: Checkpoint, digits: Dataset, dialect: str, kept: tuple[str, ...]) -> None:
    config = QuantizeConfig(qat="never", calibration_batches=2, keep_float=kept)
    found = shared.run(quantize, pruned=trained, dataset=digits, training=TRAINING, config=config, dialect=dialect, weight_bits=8)
    graph = shared.run(
        export, checkpoint=found, dataset=digits, config=ExportConfig(), dialect=dialect, float_type="fp16" if dialect == "trt" else "fp32", batch=None
    )
    convolutions = sum("fc" not in name for name in found.quantizers.kept_float)
    assert graph.audit["Conv"] - graph.audit["quantized_convs"] == convolutions
    assert graph.audit["int8_weights"] == 10 - len(found.quantizers.kept_float)
    assert graph.parity["agreement"] > 0.98
    assert open_graph(graph.folder / MODEL)(torch.zeros(1, *digits.image_shape).numpy()).shape == (1, 10)
