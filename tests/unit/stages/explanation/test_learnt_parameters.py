import numpy as np
import pytest

from bonsai.stages.explanation.learnt import Learnt
from bonsai.stages.explanation.probing import Grid

DRAWN = np.random.default_rng(0)
WEIGHT = DRAWN.standard_normal((4, 4, 3, 3)).astype(np.float32)
NORM = {name: DRAWN.uniform(0.5, 2, 4).astype(np.float32) for name in ("weight", "bias", "running_mean", "running_var")}


def a_network(epsilon: float, axis: int) -> tuple[Learnt, np.ndarray, np.ndarray]:
    """Return what a network with one layer learnt, and its weights and bias with the BatchNorm folded in."""
    along = [-1 if place == axis else 1 for place in range(4)]
    ratio = NORM["weight"] / np.sqrt(NORM["running_var"] + epsilon)
    folded = WEIGHT * ratio.reshape(along)
    scale = np.abs(np.moveaxis(folded, axis, 0)).reshape(4, -1).max(axis=1) / 127
    tensors = {"body.up.conv.weight": WEIGHT, "body.up.weight_quantizer.scale": scale.astype(np.float32)}
    tensors |= {f"body.up.bn.{name}": value for name, value in NORM.items()}
    tensors |= {"quantize_x.scale": np.float32(-0.5), "quantize_x.zero_point": np.int64(7)}
    return Learnt(tensors, 8, "ort"), folded, NORM["bias"] - NORM["running_mean"] * ratio


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_batchnorm_is_folded_with_the_epsilon_that_fits_the_file(epsilon: float, transposed: bool) -> None:
    learnt, folded, bias = a_network(epsilon, axis=1 if transposed else 0)
    found = learnt.layer("body.up", folded, transposed=transposed)
    assert found is not None
    assert np.allclose(found.weight, folded, rtol=1e-5)
    assert found.bias is not None
    assert np.allclose(found.bias, bias, rtol=1e-5)
    assert 0 < np.abs(found.rounded - folded).max() <= np.abs(folded).max() / 127


def test_layers_and_quantisers_are_known_by_their_names_alone() -> None:
    learnt, folded, _ = a_network(1e-5, axis=0)
    assert learnt.layer("body.down", folded) is None
    assert learnt.names("body.up")
    assert learnt.names("body_up_of_conv_3"), "a layer that is called several times"
    assert not learnt.names("planted")
    assert learnt.grid("quantize_x") == Grid(0.5, 7)
    assert learnt.grid("quantize_y") is None


def test_a_transposed_convolution_of_several_groups_is_compared_with_nothing() -> None:
    learnt, folded, _ = a_network(1e-5, axis=0)
    learnt.tensors["body.up.weight_quantizer.scale"] = np.ones(2, np.float32)
    assert learnt.layer("body.up", folded, transposed=True) is None
