from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from untraceable import by_value, resnet8

from bonsai.stages.errors import BuildError
from bonsai.stages.graph.exporting import export_onnx
from bonsai.stages.graph.names import INPUT


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_network_that_asks_for_the_length_of_its_input_takes_any_number_of_images(tmp_path: Path, images: int) -> None:
    network, file = resnet8(in_channels=1, num_classes=10, width=4).eval(), tmp_path / "model.onnx"
    export_onnx(network, (1, 16, 16), file, 20)
    given = torch.randn(images, 1, 16, 16)
    (logits,) = onnxruntime.InferenceSession(file).run(None, {INPUT: given.numpy()})
    np.testing.assert_allclose(logits, network(given).detach(), atol=1e-5)


def test_a_network_that_depends_on_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot export ByValue"):
        export_onnx(by_value(in_channels=1, num_classes=10, width=4), (1, 16, 16), tmp_path / "model.onnx", 20)
    assert not list(tmp_path.iterdir())
