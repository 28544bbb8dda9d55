import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.selection.coverage import at_precision, left_in_float, prunable_share, require_seen, seen_share
from bonsai.stages.selection.operator_records import Operator, Unseen


def operator(name: str, *, output: str | None = None, quantized: bool = True) -> Operator:
    """Return one of 100 multiply-accumulates."""
    cls = OperatorClass(op="conv", height=2, width=5)
    widths = ((output, 2),) if output else ()
    outputs, fixed = (((output, 1),), 0) if output else ((), 2)
    return Operator(module=name, operator=cls, inputs=(), fixed_inputs=5, outputs=outputs, fixed_outputs=fixed, full_widths=widths, quantized=quantized)


OPERATORS = (operator("a", output="a"), operator("b"), operator("c", quantized=False))


def test_the_shares_are_of_all_that_multiplies() -> None:
    unseen = (Unseen(name="x", macs=100),)
    assert seen_share(OPERATORS, unseen) == 0.75
    assert prunable_share(OPERATORS, unseen, {"a"}) == 0.25
    assert prunable_share(OPERATORS, (), {"other"}) == 0
    assert seen_share(OPERATORS, ()) == 1


def test_below_nine_tenths_no_milliseconds_are_promised_for_a_device_that_is_elsewhere() -> None:
    unseen = (Unseen(name="small", macs=10), Unseen(name="volume", macs=90))
    with pytest.raises(ConfigError, match=r"(?s)profile p: no milliseconds.*75% of.*unseen: volume 22%, small 2%.*bonsai characterize"):
        require_seen(OPERATORS, unseen, what="profile p", timed=False)


def test_where_whole_networks_are_timed_it_is_a_warning() -> None:
    warning = require_seen(OPERATORS, (Unseen(name="volume", macs=100),), what="profile p", timed=True)
    assert warning is not None
    assert "sees 75%" in warning
    assert "volume 25%" in warning


def test_a_small_part_that_is_not_seen_is_no_matter() -> None:
    assert require_seen(OPERATORS, (Unseen(name="x", macs=30),), what="p", timed=False) is None


def test_beside_int8_what_is_kept_or_not_taken_has_the_float_format() -> None:
    in_float = left_in_float(OPERATORS, ("a",))
    assert in_float == {"a", "c"}
    assert [each.operator.precision for each in at_precision(OPERATORS, "int8", in_float, "fp16")] == ["fp16", None, "fp16"]
    assert at_precision(OPERATORS, "fp32", in_float, "fp16") == OPERATORS
