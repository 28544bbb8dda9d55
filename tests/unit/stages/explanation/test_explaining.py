"""A package is explained as a whole; faults are planted in tests/integration/test_explain.py."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from planted import Case, plant
from quantised_package import make_quantised_package, rebuild
from tiny_package import needs, reseal

from bonsai.stages.errors import VerificationError
from bonsai.stages.explanation.explaining import explain
from bonsai.stages.explanation.records import Explanation

NOWHERE = Path("/nowhere")
LAYERS = ["input", "stem", "block.conv1", "block.conv2", "Add after block.conv2", "head", "GlobalAveragePool after head", "fc"]


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_quantised_package(tmp_path_factory.mktemp("int8"))


@pytest.fixture
def copied(int8: Path, tmp_path: Path) -> Path:
    return shutil.copytree(int8, tmp_path / "package")


def forget(package: Path) -> None:
    """Take out what the network learnt, as `package.network: false` does."""
    (package / "network.safetensors").unlink()
    (package / "network.json").unlink()
    reseal(package)


def kinds(found: Explanation) -> list[tuple[str, str, str]]:
    return [(finding.layer, finding.kind, finding.place) for finding in found.findings]


def test_no_layer_of_a_clean_package_stands_out_and_every_layer_is_measured(int8: Path) -> None:
    found = explain(int8, NOWHERE)
    assert found.findings == ()
    assert found.verdict.startswith("No layer stands out. Most of the error comes from ")
    assert [layer.name for layer in found.layers] == LAYERS
    assert all(layer.rounding is not None and 0 < layer.rounding < 0.05 for layer in found.layers)
    assert all(layer.engine is not None and layer.engine < 0.01 for layer in found.layers)
    assert all(layer.engine_us is not None and layer.engine_us > 0 for layer in found.layers)
    assert [layer.name for layer in found.layers if layer.float_us is None] == ["input", "block.conv2"], "in float the sum is part of the convolution's kernel"
    assert all(layer.dense_us is None for layer in found.layers)
    assert set(found.outputs) == {"rounding", "engine", "both"}
    assert any("dense reference engine is not in this store" in note for note in found.notes)
    assert Explanation.model_validate_json(found.model_dump_json()) == found


def test_an_engine_in_float_is_compared_with_its_file(sealed: Path) -> None:
    found = explain(sealed, NOWHERE)
    assert [layer.name for layer in found.layers] == ["Conv_0", "GlobalAveragePool after Conv_0", "MatMul_3"]
    assert found.findings == ()
    assert found.verdict == "No layer stands out."
    assert all(layer.engine is not None and layer.engine < 1e-5 for layer in found.layers)
    assert all(layer.rounding is None and layer.effect is None for layer in found.layers)


def test_an_engine_of_an_absent_device_is_not_run_but_its_file_is_explained(copied: Path) -> None:
    planted = plant(copied, Case("few bits", "model.onnx"), np.random.default_rng(0))
    reseal(copied, lambda facts: facts.update(compatibility=needs("rtx-4090").model_dump()))
    found = explain(copied, NOWHERE)
    assert kinds(found) == [tuple(planted)]
    assert any(note.startswith("The engine was not run: ") for note in found.notes)
    assert all(layer.engine is None and layer.engine_us is None for layer in found.layers)
    assert all(layer.rounding is not None for layer in found.layers)


@pytest.mark.parametrize("kind", ["clipping", "coarse scale", "few bits"])
def test_values_tell_of_faults_where_the_package_does_not_hold_what_the_network_learnt(copied: Path, kind: str) -> None:
    model = onnx.load(copied / "model.onnx")
    change = {
        "clipping": ("quantize_head.scale", lambda value: value * np.float32(0.2)),
        "coarse scale": ("quantize_head.scale", lambda value: value * np.float32(30)),
        "few bits": ("head.weight", lambda value: (np.round(value / np.float32(42)) * 42).astype(np.int8)),
    }
    name, function = change[kind]
    (tensor,) = [each for each in model.graph.initializer if each.name == name]
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(function(numpy_helper.to_array(tensor))), name))
    onnx.save(model, copied / "model.onnx")
    rebuild(copied)
    forget(copied)
    found = explain(copied, NOWHERE)
    assert ("head", kind, "network") in kinds(found)
    assert "does not hold what its network learnt" in found.notes[0]
    assert "quantize.keep_float: [head]" in next(finding.do for finding in found.findings if finding.layer == "head" and finding.place == "network")


def test_nothing_stands_out_where_a_clean_package_does_not_hold_what_the_network_learnt(copied: Path) -> None:
    forget(copied)
    assert explain(copied, NOWHERE).findings == ()


def test_a_tensor_that_is_read_by_another_zero_point_than_it_was_written_by_is_told_without_weights(copied: Path) -> None:
    model = onnx.load(copied / "model.onnx")
    (node,) = [each for each in model.graph.node if each.name == "stem.out.restore"]
    model.graph.initializer.append(numpy_helper.from_array(np.uint8(40), "other"))
    node.input[2] = "other"
    onnx.save(model, copied / "model.onnx")
    forget(copied)
    reseal(copied, lambda facts: facts.update(compatibility=needs("rtx-4090").model_dump()))
    found = explain(copied, NOWHERE)
    assert kinds(found)[0] == ("stem", "zero-point", "model.onnx")
    assert "40 instead of 0 where the next layer reads it" in found.findings[0].seen


def test_an_engine_of_openvino_is_compared_in_a_build_that_shows_its_layers(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    found = explain(make_quantised_package(tmp_path, profile="local-cpu-openvino"), NOWHERE)
    assert found.findings == ()
    assert any("openvino does not show the tensors of an engine" in note for note in found.notes)
    timed = {layer.name for layer in found.layers if layer.engine_us is not None}
    assert {"stem", "block.conv1", "head", "fc"} <= timed
    compared = {layer.name: layer.engine for layer in found.layers if layer.engine is not None}
    assert {"stem", "block.conv1", "head"} <= set(compared)
    assert all(error < 0.02 for error in compared.values())


def test_a_changed_package_is_refused_before_anything_runs(copied: Path) -> None:
    (copied / "engine.onnx").write_bytes(b"other")
    with pytest.raises(VerificationError, match=r"engine\.onnx: its sha256 is not the manifest's"):
        explain(copied, NOWHERE)
