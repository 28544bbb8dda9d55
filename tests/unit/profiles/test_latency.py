from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.latency import Entry, LatencyTable, Line, TableMeta
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.roofline import LAUNCH_US, estimate_us
from bonsai.profiles.schema import Peak

CONV = OperatorClass(op="conv", kernel=3, height=8, width=8, epilogue="relu")
DEPTHWISE = OperatorClass(op="conv", kernel=3, height=8, width=8, group_channels=1)
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


ODD = OperatorClass(
    op="conv", kernel=(1, 7), stride=(2, 1), dilation=(1, 2), height=8, width=4, input_size=(17, 4), groups=4, tokens=1, epilogue="relu", precision="fp32"
)
WIDE = OperatorClass(op="conv", kernel=3, height=8, width=8, group_channels=(1, 2))
WHOLE = OperatorClass(op="conv", kernel=3, height=8, width=8, group_channels=(4, 8))
HEADS = OperatorClass(op="matmul", tokens=17, group_channels=(1, 17))


def test_every_field_of_a_class_comes_back_from_the_file(tmp_path: Path) -> None:
    classes = (ODD, WIDE, WHOLE, HEADS, OperatorClass(op="linear", tokens=49), OperatorClass(op="silu", height=8, width=8))
    LatencyTable(META, [entry(operator, 16, operator.outputs(16), 1.0) for operator in classes]).save(tmp_path / "t.csv")
    assert [each.operator for each in LatencyTable.load(tmp_path / "t.csv").entries] == list(classes)


def test_a_table_of_the_first_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "t.csv")
    old = (tmp_path / "t.csv").read_text().replace('"schema_version":2', '"schema_version":1')
    (tmp_path / "t.csv").write_text(old)
    with pytest.raises(ConfigError, match=r"(?s)another edition.*schema 1.*characterise the network again"):
        LatencyTable.load(tmp_path / "t.csv")


def test_a_class_that_an_earlier_package_holds_still_loads() -> None:
    old = {"op": "conv", "kernel": 3, "stride": 2, "height": 8, "width": 8, "depthwise": False, "epilogue": "relu"}
    assert OperatorClass.model_validate(old) == OperatorClass(op="conv", kernel=(3, 3), stride=(2, 2), height=8, width=8, epilogue="relu")


def test_a_depthwise_class_that_an_earlier_package_holds_is_one_still() -> None:
    old = {"op": "conv", "kernel": 3, "height": 8, "width": 8, "depthwise": True, "multiplier": 2}
    assert OperatorClass.model_validate(old) == WIDE
    assert OperatorClass.model_validate({**old, "multiplier": 1}) == DEPTHWISE


def test_whole_groups_cost_as_much_as_they_are_and_are_not_rounded_up_to_a_step() -> None:
    table = LatencyTable(META, [entry(WHOLE, 4, 8, 10.0), entry(WHOLE, 24, 48, 60.0)])
    assert [table.lookup_ms(WHOLE, 4 * groups, 8 * groups) for groups in (1, 2, 5, 6)] == pytest.approx([0.01, 0.02, 0.05, 0.06])


def test_what_multiplies_nothing_and_begins_below_a_step_is_not_rounded_up_to_one() -> None:
    add, wide = OperatorClass(op="add", height=17, width=17), OperatorClass(op="add", height=8, width=8)
    table = LatencyTable(META, [entry(add, 1, 1, 1.0), entry(add, 3, 3, 3.0), entry(wide, 16, 16, 16.0), entry(wide, 64, 64, 64.0)])
    assert table.lookup_ms(add, 2, 2) == pytest.approx(0.002)
    assert table.lookup_ms(wide, 20, 20) == pytest.approx(0.032)


def test_float_beside_int8_has_times_of_its_own() -> None:
    beside = CONV.model_copy(update={"precision": "fp32"})
    table = LatencyTable(META, [entry(CONV, 16, 16, 1.0), entry(beside, 16, 16, 4.0)])
    assert (table.lookup_ms(CONV, 16, 16), table.lookup_ms(beside, 16, 16)) == (0.001, 0.004)


PEAK = Peak(fp32_tflops=1, fp16_tflops=2, int8_tops=4, bandwidth_gb_s=100)


def estimate(operator: OperatorClass, ci: int, co: int, *, batch: int = 1) -> float:
    return estimate_us(operator, ci, co, peak=PEAK, precision="int8", batch=batch, step=1)


def test_roofline_counts_true_weights_and_turning_the_image_changes_nothing() -> None:
    row, column, square = (OperatorClass(op="conv", kernel=kernel, height=64, width=64) for kernel in ((1, 7), (7, 1), (7, 7)))
    assert estimate(row, 64, 64) == estimate(column, 64, 64)
    work = [estimate(operator, 64, 64) - LAUNCH_US for operator in (row, square)]
    assert work[1] == pytest.approx(7 * work[0])
    turned = (
        OperatorClass(op="conv", kernel=(1, 7), stride=(2, 1), height=8, width=32),
        OperatorClass(op="conv", kernel=(7, 1), stride=(1, 2), height=32, width=8),
    )
    assert estimate(turned[0], 64, 64) == estimate(turned[1], 64, 64)


def test_roofline_of_a_grouped_convolution_lies_between_a_depthwise_and_a_dense_one() -> None:
    classes = [OperatorClass(op="conv", kernel=3, height=64, width=64, **kind) for kind in ({"group_channels": 1}, {"groups": 4}, {})]
    times = [estimate(operator, 64, 64) for operator in classes]
    assert times == sorted(times)
    assert times[1] - LAUNCH_US == pytest.approx((times[2] - LAUNCH_US) / 4)
    assert times[1] == estimate(OperatorClass(op="conv", kernel=3, height=64, width=64, group_channels=(16, 16)), 64, 64)


def test_roofline_of_heads_falls_with_their_number() -> None:
    heads = OperatorClass(op="matmul", tokens=196, group_channels=(64, 196))
    assert estimate(heads, 192, 588) == estimate(OperatorClass(op="matmul", tokens=196, groups=3), 192, 588)
    assert estimate(heads, 64, 196) - LAUNCH_US == pytest.approx((estimate(heads, 192, 588) - LAUNCH_US) / 3)


def test_roofline_of_float_beside_int8_is_that_of_the_float_format() -> None:
    dense = OperatorClass(op="conv", kernel=3, height=64, width=64)
    times = {each: estimate(dense.model_copy(update={"precision": each}), 64, 64) - LAUNCH_US for each in (None, "fp16", "fp32")}
    assert times["fp16"] == pytest.approx(2 * times[None])
    assert times["fp32"] == pytest.approx(4 * times[None])


def test_roofline_multiplies_the_rows_of_a_layer_on_tokens_and_reads_its_weights_once() -> None:
    one, many = (OperatorClass(op="linear", tokens=tokens) for tokens in (1, 4096))
    assert estimate(one, 512, 512, batch=4) - estimate(one, 512, 512) == pytest.approx(3 * 2 * 512 / 100e3)
    assert estimate(many, 512, 512) - LAUNCH_US == pytest.approx(2 * 4096 * 512 * 512 / (4e6 * 0.5))


def test_what_is_pointwise_costs_its_memory_and_no_launch() -> None:
    assert estimate(OperatorClass(op="silu", height=32, width=32), 64, 64) == pytest.approx(2 * 64 * 32 * 32 / 100e3)
    assert estimate(OperatorClass(op="add", height=32, width=32), 64, 64) == pytest.approx(3 * 64 * 32 * 32 / 100e3)


def test_calibration_goes_through_both_networks() -> None:
    line = Line.through((1.0, 1.5), (3.0, 3.1))
    assert line.offset_ms + line.scale * 1.0 == pytest.approx(1.5)
    assert line.offset_ms + line.scale * 3.0 == pytest.approx(3.1)


def test_roofline_rounds_channels_up_to_the_tile() -> None:
    peak = Peak(fp32_tflops=1, fp16_tflops=2, int8_tops=4, bandwidth_gb_s=1e6)
    at = {c: estimate_us(CONV, c, 64, peak=peak, precision="int8", batch=1, step=32) for c in (33, 64, 65)}
    assert at[33] == pytest.approx(at[64]) != pytest.approx(at[65])
    assert at[64] == pytest.approx(LAUNCH_US + 2 * 64 * 64 * 64 * 9 / (4e6 * 0.5))


def damaged(tmp_path: Path, old: str, new: str) -> Path:
    file = tmp_path / "table.csv"
    TABLE.save(file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


ROW = "16,16,10.360,10.360,1,k"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10.360,10.360", "10.360,nan", r"table\.csv:3: a row is not usable\n  given:   p50_us = 'nan'"),
        ("10.360,10.360", "10.360,inf", r"p50_us = 'inf'"),
        ("10.360,10.360", "10.360,-1", r"p50_us = '-1'"),
        ("10.360,10.360", "10.360,1e300", r"p50_us = '1e300'"),
        ("10.360,10.360", "10.360", r"table\.csv:3: a row is not usable\n  given:   16 cells"),
        (ROW, ROW.replace("16,16", "16,-16"), r"co = '-16'"),
        (ROW, ROW.replace("16,16", "sixteen,16"), r"ci = 'sixteen'"),
        ("16,128,", "16,16,", r"table\.csv:4: an operator's channels are there twice\n  given:   first at line 3"),
        ("\nconv,", "\nconvolution,", r"op.* = 'convolution'"),
        ("3x3", "3x3x3", r"kernel = "),
        ("depthwise*1", "depthwise*", r"group_channels"),
        ("depthwise*1", "depthwise", r"groups = 'depthwise'"),
        ("depthwise*1", "8x8x8", r"group_channels"),
        ("p50_us", "p51_us", r"table\.csv:2: other columns"),
        ('"step":16', '"step":0', r"table\.csv:1: #meta is not usable\n  given:   step = 0"),
        ('"contention":null', '"contention":NaN', r"table\.csv:1: no JSON after #meta"),
        ('"contention":null', '"contention":1e999', r"table\.csv:1: no JSON after #meta"),
        ("#meta {", "#meta " + "[" * 5000, r"table\.csv:1: no JSON after #meta"),
        ("#meta {", "#meta 5 {", r"table\.csv:1: no JSON after #meta"),
        (ROW, f'"{ROW}', r"no CSV|a row is not usable"),
    ],
)
def test_a_row_that_is_none_is_refused_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        LatencyTable.load(damaged(tmp_path, old, new))
    assert len(str(error.value)) < 2_000


def test_a_table_whose_operators_take_no_time_is_refused(tmp_path: Path) -> None:
    LatencyTable(META, [entry(CONV, 16, 16, 0.0)]).save(tmp_path / "table.csv")
    with pytest.raises(ConfigError, match="no operator takes any time"):
        LatencyTable.load(tmp_path / "table.csv")


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"#meta \xff\xfe")
    with pytest.raises(ConfigError, match=r"table\.csv: a latency table cannot be read"):
        LatencyTable.load(tmp_path / "table.csv")
