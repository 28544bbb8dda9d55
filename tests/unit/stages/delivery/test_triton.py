import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf import text_format
from tiny_package import CLASSES, SHAPE, ask, make_older, needs, reseal
from tritonclient.grpc import model_config_pb2 as triton

from bonsai.pipeline.run.publish import lay_out
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.errors import VerificationError
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.tasks.predicting import READINGS
from bonsai.stages.tasks.registry import TASKS


def parsed(model: Path) -> triton.ModelConfig:
    """Read a config as Triton does; an unknown field or a wrong type raises."""
    return text_format.Parse((model / "config.pbtxt").read_text(), triton.ModelConfig())


def make_tensorrt(package: Path) -> None:
    """Let the package say that TensorRT built it; the layout copies the plan and never reads it."""
    (package / "engine.onnx").rename(package / "engine.plan")

    def edit(facts: dict[str, object]) -> None:
        facts["engine"] |= {"file": "engine.plan", "runtime": "tensorrt"}  # type: ignore[operator]
        facts["compatibility"] = needs("a10", device="A10").model_dump()
        facts["profile"] = load_profile("a10").model_dump(mode="json")

    reseal(package, edit)


def test_an_onnxruntime_package_is_served_from_its_portable_graph(package: Path, tmp_path: Path) -> None:
    model = lay_out("triton", package, tmp_path / "models")
    assert model == tmp_path / "models" / "tiny--local-cpu"
    assert {file.relative_to(model).as_posix() for file in model.rglob("*") if file.is_file()} == {
        "config.pbtxt",
        "labels.txt",
        "MODEL_CARD.md",
        "predict.py",
        "1/model.onnx",
    }
    assert sha256_file(model / "1" / "model.onnx") == read_intact(package).files["model.onnx"]
    config = parsed(model)
    assert (config.name, config.platform, config.max_batch_size) == (model.name, "onnxruntime_onnx", 1)
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.input] == [("input", triton.TYPE_FP32, [1, 8, 8])]
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.output] == [("logits", triton.TYPE_FP32, [3])]
    assert [(group.kind, group.count) for group in config.instance_group] == [(triton.ModelInstanceGroup.KIND_CPU, 1)]
    assert not config.HasField("dynamic_batching")
    assert config.parameters["intra_op_thread_count"].string_value == "1"


def test_the_configuration_says_how_the_input_is_prepared(package: Path, tmp_path: Path) -> None:
    model = lay_out("triton", package, tmp_path / "models")
    assert Preprocess.model_validate_json(parsed(model).parameters["preprocess"].string_value) == Preprocess.of(SHAPE)
    assert "# The client prepares the input: pixels / 255, minus 0.5, over 0.5. `read_inputs` of predict.py" in (model / "config.pbtxt").read_text()
    assert (model / "predict.py").read_bytes() == (package / "predict.py").read_bytes()


@pytest.mark.parametrize("task", TASKS)
def test_the_configuration_says_how_the_outputs_of_each_task_are_read(task: str, package: Path, tmp_path: Path) -> None:
    reseal(package, lambda facts: facts["recipe"].update(task=task))  # type: ignore[attr-defined]
    model = lay_out("triton", package, tmp_path / "models")
    text = (model / "config.pbtxt").read_text()
    assert parsed(model).parameters["task"].string_value == task
    assert f'# The client reads the output: {READINGS[task].sentence}. `READINGS["{task}"].predict(output, classes)` of predict.py' in text
    read = runpy.run_path(str(model / "predict.py"))["READINGS"][task].predict
    shape = (3, 2, 2) if task == "segmentation" else (3,)
    output = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert read(output, CLASSES) == READINGS[task].predict(output, CLASSES)


def test_the_configuration_says_whose_task_it_is_where_nobody_else_can_read_the_outputs(package: Path, tmp_path: Path) -> None:
    outputs = [{"name": "values", "shape": [3]}]
    reseal(package, lambda facts: facts.update(recipe=facts["recipe"] | {"task": "mine:Länge"}, outputs=outputs))  # type: ignore[operator]
    model = lay_out("triton", package, tmp_path / "models")
    assert parsed(model).parameters["task"].string_value == "mine:Länge"
    assert "# The client reads the outputs: the package's task, \"mine:Länge\", is its maker's own" in (model / "config.pbtxt").read_text()


def test_a_series_is_prepared_as_the_configuration_says(package: Path, tmp_path: Path) -> None:
    series = Preprocess.of((2, 50)).model_copy(update={"scale": (-5.0, 5.0)})

    def edit(facts: dict[str, object]) -> None:
        facts["preprocess"] = series.model_dump(mode="json")
        facts["engine"] |= {"image_shape": [2, 50]}  # type: ignore[operator]

    reseal(package, edit)
    model = lay_out("triton", package, tmp_path / "models")
    assert list(parsed(model).input[0].dims) == [2, 50]
    assert "# The client prepares the input: (values - -5) / 10, minus 0.5, over 0.5." in (model / "config.pbtxt").read_text()
    told = SimpleNamespace(**json.loads(parsed(model).parameters["preprocess"].string_value))
    values = np.linspace(-5, 5, 100, dtype=np.float32).reshape(2, 50)
    np.save(tmp_path / "wave.npy", values)
    (found,) = runpy.run_path(str(model / "predict.py"))["read_inputs"](tmp_path / "wave.npy", told)
    assert np.allclose(found, values / 5, atol=1e-6)


def test_a_package_of_an_earlier_version_is_laid_out_without_them(package: Path, tmp_path: Path) -> None:
    make_older(package)
    model = lay_out("triton", package, tmp_path / "models")
    assert not (model / "predict.py").exists()
    assert not {"preprocess", "task"} & parsed(model).parameters.keys()


def test_the_labels_are_the_classes_in_their_order(package: Path, tmp_path: Path) -> None:
    model = lay_out("triton", package, tmp_path / "models")
    assert (model / parsed(model).output[0].label_filename).read_text().splitlines() == list(CLASSES)


def test_a_tensorrt_package_is_served_from_the_very_bytes_of_its_engine(package: Path, tmp_path: Path) -> None:
    make_tensorrt(package)
    model = lay_out("triton", package, tmp_path / "models")
    assert (model / "1" / "model.plan").read_bytes() == (package / "engine.plan").read_bytes()
    config = parsed(model)
    assert (config.platform, config.max_batch_size, config.HasField("dynamic_batching")) == ("tensorrt_plan", 32, True)
    assert config.instance_group[0].kind == triton.ModelInstanceGroup.KIND_GPU
    assert "tensorrt ==10.3.0" in (model / "config.pbtxt").read_text().splitlines()[0]


def test_an_execution_provider_is_asked_of_triton_too(package: Path, tmp_path: Path) -> None:
    profile = load_profile("local-cpu", {"target.provider": "openvino"}).model_dump(mode="json")
    reseal(package, lambda facts: facts.update(profile=profile))
    accelerators = parsed(lay_out("triton", package, tmp_path / "models")).optimization.execution_accelerators
    assert [accelerator.name for accelerator in accelerators.cpu_execution_accelerator] == ["openvino"]
    assert list(accelerators.gpu_execution_accelerator) == []


def test_a_layout_replaces_an_older_one_and_leaves_nothing_beside_it(package: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    model = lay_out("triton", package, repository)
    (model / "1" / "older.bin").write_bytes(b"")
    lay_out("triton", package, repository)
    assert not (model / "1" / "older.bin").exists()
    assert [path.name for path in repository.iterdir() if path.is_dir()] == [model.name]


def test_tensorrt_for_rtx_is_refused(package: Path, tmp_path: Path) -> None:
    reseal(package, lambda facts: ask(facts, load_profile("rtx-4090")))
    with pytest.raises(ConfigError, match="Triton does not run engines of this runtime\n  given:   tensorrt-rtx\n  allowed: onnxruntime, tensorrt\n"):
        lay_out("triton", package, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_changed_package_is_not_laid_out(package: Path, tmp_path: Path) -> None:
    (package / "model.onnx").write_bytes(b"another graph")
    with pytest.raises(VerificationError, match=r"model\.onnx: its sha256 is not the manifest's"):
        lay_out("triton", package, tmp_path / "models")
