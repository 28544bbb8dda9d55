from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bonsai.stages.quantization.qdq import QdqTensor
from bonsai.stages.quantization.quantizers import ActivationQuantizer, WeightQuantizer, best_scale


def quantizer(*, non_negative: bool, dialect: str, scale: float, fused_in_trt: bool = False) -> ActivationQuantizer:
    made = ActivationQuantizer(non_negative=non_negative, fused_in_trt=fused_in_trt, dialect=dialect)
    made.scale.data.fill_(scale)
    return made


@pytest.mark.parametrize(
    ("non_negative", "dialect", "highest", "lowest"),
    [(True, "ort", 255, 0), (True, "trt", 127, 0), (False, "ort", 127, -128), (False, "trt", 127, -128)],
)
def test_the_grid_of_each_dialect(non_negative: bool, dialect: str, highest: int, lowest: int) -> None:
    made = quantizer(non_negative=non_negative, dialect=dialect, scale=0.5)
    out = made(torch.tensor([[-1000.0, 1000.0, 0.3]]))
    assert out.tolist() == [[lowest * 0.5, highest * 0.5, 0.5]]


@given(st.floats(0.01, 10), st.integers(-300, 300))
def test_values_on_the_grid_are_kept_and_the_rest_rounds_by_half_a_step(scale: float, integer: int) -> None:
    made = quantizer(non_negative=False, dialect="ort", scale=scale)
    step = float(made.scale.detach())
    x = torch.tensor([[max(min(integer, 127), -128) * step]])
    torch.testing.assert_close(made(x).detach(), x)
    inside = x.clamp(-127 * step, 126 * step) + 0.4 * step
    assert float((made(inside).detach() - inside).abs().max()) <= 0.5001 * step


def test_the_other_dialect_covers_the_same_range() -> None:
    made = quantizer(non_negative=True, dialect="ort", scale=0.1)
    assert made.scale_in("trt") * 127 == pytest.approx(0.1 * 255)
    assert made.scale_in("ort") == pytest.approx(0.1)


def test_a_fused_residual_is_left_alone_in_trt_only() -> None:
    x = torch.tensor([[0.26]])
    assert torch.equal(quantizer(non_negative=False, dialect="trt", scale=0.5, fused_in_trt=True)(x), x)
    assert not torch.equal(quantizer(non_negative=False, dialect="ort", scale=0.5, fused_in_trt=True)(x), x)


def test_gradients_pass_inside_the_range_and_stop_outside() -> None:
    made = quantizer(non_negative=False, dialect="ort", scale=1.0)
    x = torch.tensor([[0.3, 500.0, -500.0]], requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, 0.0, 0.0]]
    # LSQ: d/ds = round(x/s) - x/s inside, the clipping bound outside, times 1 / sqrt(n * high)
    assert float(made.scale.grad) == pytest.approx((-0.3 + 127 - 128) * (3 * 127) ** -0.5, rel=1e-5)


@pytest.mark.parametrize(("bits", "highest"), [(8, 127), (7, 63)])
def test_weights_are_symmetric_per_channel(bits: int, highest: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 3, 3) * torch.tensor([0.1, 1.0, 10.0, 100.0]).reshape(4, 1, 1, 1)
    made = WeightQuantizer(4, bits)
    made.calibrate(weight)
    integers = made.integers(weight, made.scale.detach())
    assert integers.dtype == torch.int8
    assert int(integers.abs().max()) <= highest
    restored = integers * made.scale.detach().reshape(4, 1, 1, 1)
    torch.testing.assert_close(restored, made(weight).detach())
    relative = (restored - weight).flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
    assert float(relative.max()) < 0.05


def test_the_best_scale_beats_the_maximum_where_there_are_outliers() -> None:
    torch.manual_seed(0)
    rows = torch.randn(1, 4096)
    rows[0, 0] = 9.0

    def error(scale: torch.Tensor) -> float:
        return float(((rows / scale).round().clamp(-7, 7) * scale - rows).square().mean())

    assert error(best_scale(rows, -7, 7)) < 0.8 * error(rows.abs().max().reshape(1, 1) / 7)


def test_calibration_looks_at_every_column_of_pixels() -> None:
    made = ActivationQuantizer(non_negative=True, fused_in_trt=False, dialect="ort")
    made.samples = []
    image = torch.zeros(64, 4, 32, 32)
    image[..., 5] = 2.55
    made(image)
    made.calibrate()
    assert float(made.scale.detach()) == pytest.approx(0.01, rel=0.05)


def calibrated(values: torch.Tensor, dialect: str) -> ActivationQuantizer:
    made = ActivationQuantizer(non_negative=False, fused_in_trt=False, dialect=dialect)
    made.samples = [values.flatten()]
    made.calibrate()
    return made


@pytest.mark.parametrize("activation", [torch.nn.functional.silu, torch.nn.functional.gelu, torch.nn.functional.hardswish])
def test_a_lopsided_tensor_gets_a_shifted_grid_of_a_third_of_the_error(activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    values = activation(2 * torch.randn(1, 8192))
    shifted, symmetric = calibrated(values, "ort"), calibrated(values, "trt")
    assert 0 < int(shifted.zero_point) < 40
    assert shifted.limits("ort") == (-int(shifted.zero_point), 255 - int(shifted.zero_point))
    errors = [float((made(values) - values).square().mean().detach()) for made in (shifted, symmetric)]
    assert errors[0] < 0.4 * errors[1]


def test_an_even_tensor_keeps_the_symmetric_grid() -> None:
    torch.manual_seed(0)
    made = calibrated(torch.randn(1, 8192), "ort")
    assert int(made.zero_point) == 128
    assert made.limits("ort") == (-128, 127)


def test_a_shifted_grid_is_exported_as_it_is_and_reaches_as_far_in_the_other_dialect() -> None:
    torch.manual_seed(0)
    made = calibrated(torch.nn.functional.silu(2 * torch.randn(1, 8192)), "ort")
    ort, trt = (QdqTensor.of(made, dialect, "fp32") for dialect in ("ort", "trt"))
    assert (ort.dtype, int(ort.zero_point), float(ort.scale)) == (torch.uint8, int(made.zero_point), float(made.scale.detach()))
    assert (trt.dtype, int(trt.zero_point)) == (torch.int8, 0)
    assert float(trt.scale) * 127 == pytest.approx(float(ort.scale) * (255 - int(made.zero_point)))


def test_training_moves_the_scale_of_a_shifted_grid_and_not_its_zero_point() -> None:
    torch.manual_seed(0)
    values = torch.nn.functional.silu(2 * torch.randn(4, 2048))
    made = calibrated(values, "ort")
    before = int(made.zero_point)
    made.train()(values).square().sum().backward()
    assert made.scale.grad is not None and float(made.scale.grad) != 0
    assert int(made.zero_point) == before
    assert "zero_point" in made.state_dict()
