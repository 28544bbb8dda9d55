from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from stages.errors import BuildError
from stages.graph.audit import audit_graph, require_dialect, require_same
from stages.graph.config import ExportConfig
from stages.graph.parity import compare, require_parity
from stages.models.config import ModelConfig
from stages.pruning.groups import WidthPlan
from stages.sketch import sketch
from stages.store import Store


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    store = Store(tmp_path_factory.mktemp("store"))
    model = ModelConfig(name="resnet8", options={"width": 16})
    made = {
        d: store.run(sketch, model=model, image_shape=(1, 16, 16), num_classes=10, plan=WidthPlan(), dialect=d, opset=20, pattern=None)
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
    assert [o.name for o in graph.output] == ["logits"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(("held", "asked"), [("ort", "trt"), ("trt", "ort")])
def test_the_wrong_dialect_is_refused(graphs: dict[str, Path], held: str, asked: str) -> None:
    with pytest.raises(BuildError, match=f"not the {asked} dialect"):
        require_dialect(onnx.load(graphs[held]), asked)


def test_a_float_convolution_in_a_quantised_graph_is_refused(graphs: dict[str, Path]) -> None:
    with pytest.raises(BuildError, match="only 0 of 10 layers are quantised, and 0 may stay in float; in float: conv1, "):
        require_dialect(onnx.load(graphs["float"]), "ort")


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
        right = compare(network, lambda x: network(torch.from_numpy(x)).numpy(), images)
        wrong = compare(network, lambda x: network(torch.from_numpy(-x)).numpy(), images)
    require_parity(right, config)
    assert right["agreement"] == 1
    with pytest.raises(BuildError, match="does not follow the torch network"):
        require_parity(wrong, config)
