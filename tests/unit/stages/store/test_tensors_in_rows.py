"""What safetensors would write of slices: other numbers."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from bonsai.stages.measurement.samples import save_samples
from bonsai.stages.store.tensor_files import in_rows

WHOLE = np.arange(20).reshape(2, 10)


@pytest.mark.parametrize("array", [WHOLE[:, :4], WHOLE.T, WHOLE[:, ::2], WHOLE[0, 1:]], ids=["columns", "transposed", "every second", "part of a row"])
def test_arrays_are_read_back_as_they_were(array: np.ndarray) -> None:
    assert (load(save(in_rows({"it": array})))["it"] == array).all()


def test_samples_of_a_timing_that_ended_early_are_kept_as_they_were(tmp_path: Path) -> None:
    save_samples(tmp_path / "samples.safetensors", {"engine": WHOLE[:, :4]})
    assert (load((tmp_path / "samples.safetensors").read_bytes())["engine"] == WHOLE[:, :4]).all()
