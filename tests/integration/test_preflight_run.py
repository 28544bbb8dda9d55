"""What cannot be shipped is told before anything is trained."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from bonsai import compress
from bonsai.pipeline.compare.comparing import compare
from bonsai.stages.errors import BuildError

pytestmark = pytest.mark.slow  # exports and builds

CONFIGS = Path(__file__).parent / "configs"
TINY, WIDE, HOPELESS, RTX = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-wide", "tiny-hopeless", "tiny-rtx"))
SMALL = {"model.options": {"width": 16}}


def test_an_operator_that_onnx_lacks_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="profile tiny-wide, fp32: the untrained network cannot be exported") as raised:
        compress(TINY, WIDE, {"model.name": "unexportable:Median", **SMALL}, store=tmp_path)
    assert "ONNX has no operator for aten.median (hard_networks.py, line" in str(raised.value)
    assert raised.value.exit_code == 4
    assert sorted(folder.name for folder in tmp_path.iterdir() if not folder.name.startswith(".")) == ["initialise", "packages", "prepare"]


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed: pip install 'bonsai-compress[rtx]'")
def test_a_precision_of_an_absent_device_is_told_before_training_and_other_profiles_go_on(tmp_path: Path) -> None:
    settings = {"model.name": "unexportable:Ramp", **SMALL}
    with pytest.raises(BuildError, match="profile tiny-rtx, fp16: the untrained network cannot be exported") as raised:
        compress(TINY, RTX, settings, store=tmp_path)
    assert "ship fp32, which passed" in str(raised.value)
    assert not (tmp_path / "train_dense").exists()
    found = compare(TINY, [RTX, HOPELESS], settings, store=tmp_path)
    assert [outcome.exit_code for outcome in found.outcomes] == [4, 2]  # the second came as far as its budget
    assert not (tmp_path / "train_dense").exists()
