"""Engines of a file that has several inputs: they take them joined, and give what torch gives."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from several_inputs import IMAGES, NUMBERS, OTHERS, Compared, Measured
from torch import nn

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.reference import open_graph
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.probes import probes_of
from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.packed_inputs import pack_inputs
from bonsai.stages.networks.several_outputs import select_outputs
from bonsai.stages.tasks.task import TensorSpec

pytestmark = pytest.mark.slow  # graphs are exported

MEASURED = Form("dict", ("image", "numbers"), ((1, 8, 8), (3,)))
COMPARED = Form("tuple", ("0", "1"), ((1, 8, 8), (1, 8, 8)))
CASES = {
    "measured": (Measured, MEASURED, (IMAGES, NUMBERS), (TensorSpec("output", (4,)),)),
    "compared": (
        lambda: select_outputs(Compared(), ("maps", "same")),
        COMPARED,
        (IMAGES, OTHERS),
        (TensorSpec("maps", (16, 4, 4)), TensorSpec("same", (2,))),
    ),
}
TARGETS = ["local-cpu", pytest.param("local-cpu-openvino", marks=pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed"))]


def export(case: str, folder: Path, batch: int | None, float_type: str = "fp32") -> tuple[nn.Module, torch.Tensor, Form]:
    made, form, parts, outputs = CASES[case]
    network, joined = pack_inputs(made().eval(), form), torch.cat([part.flatten(1) for part in parts], 1)
    how = {"opset": 20, "batch": batch, "dialect": "float", "float_type": float_type}
    write_graph(network, tuple(joined.shape[1:]), folder / MODEL, inputs=form.specs(None, "input"), outputs=outputs, **how)  # type: ignore[arg-type]
    return network, joined, form


@pytest.mark.parametrize("profile", TARGETS)
@pytest.mark.parametrize(("batch", "fixed"), [(1, None), (4, None), (4, 4)])
@pytest.mark.parametrize("case", CASES)
def test_an_engine_takes_its_inputs_joined(case: str, profile: str, batch: int, fixed: int | None, tmp_path: Path) -> None:
    network, joined, _ = export(case, tmp_path, fixed)
    target = load_profile(profile).target.model_copy(update={"precision": "fp32", "batch": batch})
    backend = backend_of(target)
    backend.build(tmp_path / MODEL, tmp_path / backend.engine_file, target, tuple(joined.shape[1:]))
    run = backend.open_engine(tmp_path / backend.engine_file, target)
    expected = network(joined).detach().numpy()
    for count in (1, 4, 6):
        found = run(joined[:count].numpy())
        np.testing.assert_allclose(found, expected[:count], atol=1e-4)


def test_an_fp16_file_has_fp32_inputs(tmp_path: Path) -> None:
    network, joined, _ = export("measured", tmp_path, None, "fp16")
    found, expected = open_graph(tmp_path / MODEL)(joined.numpy()), network(joined).detach().numpy()
    assert 0 < np.abs(found - expected).max() < 0.01


def test_probes_of_two_images_differ(tmp_path: Path) -> None:
    export("compared", tmp_path, None)
    probes = probes_of(tmp_path / MODEL, (128,), 4)
    left, right = probes[:, :64], probes[:, 64:]
    assert probes.shape == (4, 128)
    assert (np.abs(left - right).mean(1) > 0.1).all()
    np.testing.assert_array_equal(probes_of(tmp_path / MODEL, (128,), 2), probes[:2])


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
@pytest.mark.parametrize("case", CASES)
def test_tensorrt_builds_a_graph_of_several_inputs(case: str, tmp_path: Path) -> None:
    _, joined, _ = export(case, tmp_path, None, "fp16")
    target = load_profile("rtx-4090").target.model_copy(update={"precision": "fp16", "batch": 4})
    backend = backend_of(target)
    coverage = backend.build(tmp_path / MODEL, tmp_path / backend.engine_file, target, tuple(joined.shape[1:]))
    assert coverage["network_convolutions"] == (2 if case == "measured" else 4)
    assert (tmp_path / backend.engine_file).stat().st_size > 0
