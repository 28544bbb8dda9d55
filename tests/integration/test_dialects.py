from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from bonsai.stages.backends.reference import open_graph
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.audit import audit_graph, require_dialect, require_same
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.exporting import simplify_onnx
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.graph.parity import compare, require_parity
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.steps.export_untrained import export_untrained
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.judging import CLASSIFICATION


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    store = Store(tmp_path_factory.mktemp("store"))
    model = ModelConfig(name="resnet8", options={"width": 16})
    made = {
        d: store.run(
            export_untrained, model=model, image_shape=(1, 16, 16), num_classes=10, plan=WidthPlan(), dialect=d, float_type="fp32", opset=20, dense=None
        )
        for d in ("float", "ort", "trt")
    }
    return {dialect: graph.folder / "model.onnx" for dialect, graph in made.items()}


def test_the_audit_counts_what_each_dialect_holds(graphs: dict[str, Path]) -> None:
    counts = {dialect: audit_graph(onnx.load(file)) for dialect, file in graphs.items()}
    assert counts["float"]["Conv"] == 9
    assert counts["float"]["QuantizeLinear"] == 0
    for dialect, activations in (("ort", "uint8_activations"), ("trt", "int8_activations")):
        assert counts[dialect]["quantized_convs"] == 9
        assert counts[dialect]["int8_weights"] == 10
        assert counts[dialect][activations] == counts[dialect]["QuantizeLinear"]
    assert counts["ort"]["QuantizeLinear"] - counts["trt"]["QuantizeLinear"] == 3  # the three fused residuals


def test_the_batch_is_dynamic_and_the_names_are_standard(graphs: dict[str, Path]) -> None:
    graph = onnx.load(graphs["ort"]).graph
    assert [i.name for i in graph.input] == ["input"]
    assert [o.name for o in graph.output] == ["output"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(("held", "asked"), [("ort", "trt"), ("trt", "ort")])
def test_the_wrong_dialect_is_refused(graphs: dict[str, Path], held: str, asked: str) -> None:
    with pytest.raises(BuildError, match=f"not the {asked} dialect"):
        require_dialect(onnx.load(graphs[held]), asked, 10)


def test_a_float_convolution_in_a_quantised_graph_is_refused(graphs: dict[str, Path]) -> None:
    with pytest.raises(BuildError, match="0 layers are INT8, 10 should be; in float: conv1, "):
        require_dialect(onnx.load(graphs["float"]), "ort", 10)


def test_a_simplification_that_drops_a_pair_is_refused(graphs: dict[str, Path]) -> None:
    before = audit_graph(onnx.load(graphs["ort"]))
    with pytest.raises(BuildError, match=r"QuantizeLinear \d+ -> \d+"):
        require_same(before, {**before, "QuantizeLinear": before["QuantizeLinear"] - 1})


def test_parity_sees_a_network_that_was_exported_wrongly() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    images = torch.randn(50, 1, 4, 4)
    config = ExportConfig()
    with torch.no_grad():
        right = compare(network, lambda x: network(torch.from_numpy(x)).numpy(), images, CLASSIFICATION)
        wrong = compare(network, lambda x: network(torch.from_numpy(-x)).numpy(), images, CLASSIFICATION)
    require_parity(right, config)
    assert right["agreement"] == 1
    with pytest.raises(BuildError, match="does not follow the torch network"):
        require_parity(wrong, config)


@pytest.mark.parametrize("dialect", ["float", "ort"])
def test_a_file_of_a_fixed_batch_takes_any_number_of_images_through_its_run(graphs: dict[str, Path], store: Store, dialect: Dialect) -> None:
    shape = {"model": ModelConfig(name="resnet8", options={"width": 16}), "image_shape": (1, 16, 16), "num_classes": 10, "plan": WidthPlan(), "opset": 20}
    fixed = store.run(export_untrained, **shape, dialect=dialect, float_type="fp32", dense=None, batch=4)
    assert onnx.load(fixed.folder / MODEL).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    images = np.random.default_rng(0).standard_normal((9, 1, 16, 16)).astype(np.float32)
    expected = open_graph(graphs[dialect])(images)
    found = open_graph(fixed.folder / MODEL)(images)
    assert found.shape == (9, 10)
    assert np.abs(found - expected).max() <= 0.01 * np.abs(expected).max()


def test_a_simplification_that_folds_a_convolution_is_rejected_and_the_exporters_file_kept(graphs: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(graphs["ort"])
    constants = {"constant": np.ones((1, 1, 1, 10), np.float32), "kernel": np.ones((1, 1, 1, 1), np.float32), "flat": np.array([1, 10])}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node[-1].output[0] = "before"
    model.graph.node.extend(
        [  # of constants: a simplifier computes it
            helper.make_node("Conv", ["constant", "kernel"], ["convolved"]),
            helper.make_node("Reshape", ["convolved", "flat"], ["reshaped"]),
            helper.make_node("Add", ["before", "reshaped"], ["output"]),
        ]
    )
    onnx.save(model, tmp_path / "exported.onnx")
    written = simplify_onnx(tmp_path / "exported.onnx", tmp_path / MODEL, None)
    assert written.not_simplified == "the simplification changed the graph: Conv 10 -> 9"
    assert written.audit == audit_graph(model) == audit_graph(onnx.load(tmp_path / MODEL))
