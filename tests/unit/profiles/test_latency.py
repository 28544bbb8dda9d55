from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import ConfigError
from profiles.latency import Calibration, Entry, LatencyTable, TableMeta
from profiles.operator_class import OperatorClass
from profiles.roofline import LAUNCH_US, estimate_us
from profiles.schema import Peak

CONV = OperatorClass(op="conv", kernel=3, height=8, width=8, epilogue="relu")
DEPTHWISE = OperatorClass(op="conv", kernel=3, height=8, width=8, depthwise=True)
META = TableMeta(
    source="measured",
    device="d",
    runtime="onnxruntime",
    runtime_version="1",
    precision="int8",
    batch=1,
    threads=1,
    step=16,
    clock="c",
    statistic="s",
    date="2026-01-01",
)


def entry(operator: OperatorClass, ci: int, co: int, us: float) -> Entry:
    return Entry(operator=operator, ci=ci, co=co, p10_us=us, p50_us=us, reps=1, kernels="k")


def bilinear_us(ci: float, co: float) -> float:
    return 3 + 0.1 * ci + 0.2 * co + 0.01 * ci * co


TABLE = LatencyTable(
    META, [entry(CONV, ci, co, bilinear_us(ci, co)) for ci in (16, 64) for co in (16, 128)] + [entry(DEPTHWISE, c, c, float(c)) for c in (16, 32)]
)


@given(st.integers(1, 6), st.integers(1, 12))
def test_lookup_is_exact_on_a_bilinear_operator(ci: int, co: int) -> None:
    assert TABLE.lookup_ms(CONV, 16 * ci, 16 * co) == pytest.approx(bilinear_us(16 * ci, 16 * co) / 1e3)


def test_widths_between_two_steps_cost_as_much_as_the_next_one() -> None:
    assert TABLE.lookup_ms(CONV, 17, 100) == pytest.approx(bilinear_us(32, 112) / 1e3)


def test_arrays_are_looked_up_as_their_elements() -> None:
    ins, outs = np.array([16, 32, 64])[:, None], np.array([16, 128])[None]
    found = TABLE.lookup_ms(CONV, ins, outs)
    assert found.shape == (3, 2)
    assert found[1, 1] == TABLE.lookup_ms(CONV, 32, 128)


def test_depthwise_is_interpolated_along_its_one_axis() -> None:
    assert TABLE.lookup_ms(DEPTHWISE, 48, 48) == pytest.approx(0.048)


def test_an_unknown_operator_is_an_error() -> None:
    with pytest.raises(ConfigError, match="lacks an operator"):
        TABLE.lookup_ms(OperatorClass(op="linear"), 1, 1)


def test_an_incomplete_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"grid is incomplete"):
        LatencyTable(META, [entry(CONV, 16, 16, 1.0), entry(CONV, 64, 128, 2.0)])


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "t.csv")
    loaded = LatencyTable.load(tmp_path / "t.csv", expect={"precision": "int8", "batch": 1})
    assert loaded.meta == META
    assert [(e.operator, e.ci, e.co) for e in loaded.entries] == [(e.operator, e.ci, e.co) for e in TABLE.entries]
    assert loaded.lookup_ms(CONV, 32, 32) == pytest.approx(TABLE.lookup_ms(CONV, 32, 32), abs=1e-6)


def test_load_refuses_a_table_of_other_conditions(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "t.csv")
    with pytest.raises(ConfigError, match="precision = int8"):
        LatencyTable.load(tmp_path / "t.csv", expect={"precision": "fp32"})


def test_load_refuses_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("op,k\n")
    with pytest.raises(ConfigError, match="no latency table"):
        LatencyTable.load(tmp_path / "t.csv")


def test_calibration_goes_through_both_networks() -> None:
    line = Calibration.through((1.0, 1.5), (3.0, 3.1))
    assert line.offset_ms + line.scale * 1.0 == pytest.approx(1.5)
    assert line.offset_ms + line.scale * 3.0 == pytest.approx(3.1)


def test_roofline_rounds_channels_up_to_the_tile() -> None:
    peak = Peak(fp32_tflops=1, fp16_tflops=2, int8_tops=4, bandwidth_gb_s=1e6)
    at = {c: estimate_us(CONV, c, 64, peak=peak, precision="int8", batch=1, step=32) for c in (33, 64, 65)}
    assert at[33] == pytest.approx(at[64]) != pytest.approx(at[65])
    assert at[64] == pytest.approx(LAUNCH_US + 2 * 64 * 64 * 64 * 9 / (4e6 * 0.5))
