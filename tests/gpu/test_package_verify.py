"""A package on the GPU that it was built for."""

import json
from pathlib import Path

import pytest
from test_tensorrt_run import target_here
from tiny_package import make_package

from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.machine import list_gpus, nvidia_driver
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.store.manifest import MANIFEST

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_a_package_is_verified_on_its_gpu_in_a_process_of_its_own(runtime: str, tmp_path: Path, gpu_required: bool) -> None:
    target = target_here(runtime, required=gpu_required)
    package = make_package(tmp_path, load_profile("rtx-4090").model_copy(update={"target": target.model_copy(update={"precision": "fp32"})}))
    needed = json.loads((package / MANIFEST).read_text())["compatibility"]
    assert (needed["device"], needed["driver"]) == (list_gpus()[0].name, nvidia_driver())
    assert "gives the golden outputs of 3 images" in verify_package(package, require_run=True)[-1]
