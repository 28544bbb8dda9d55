"""In processes of their own: what one test imports stays imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[4]
NEEDS_HOOK = """
import torch, torchvision
boxes = torch.tensor([[0, 0, 2, 2.0], [0, 0, 2, 2.1], [5, 5, 6, 6]])
scores = torch.tensor([0.5, 0.6, 0.1])
assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
assert torchvision.ops.batched_nms(boxes, scores, torch.tensor([0, 1, 1]), 0.5).tolist() == [1, 0, 2]
many = torch.cat([boxes.repeat(500, 1) + 10 * torch.arange(500.0).repeat_interleave(3)[:, None]])
assert len(torchvision.ops.batched_nms(many, scores.repeat(500), torch.arange(1500) % 3, 0.5)) == 1500
assert torchvision.ops.roi_align(torch.ones(1, 2, 8, 8), [torch.tensor([[0, 0, 4, 4.0]])], 2).shape == (1, 2, 2, 2)
"""


def python(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(folder)])}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


def test_bonsai_alone_imports_neither_torch_nor_torchvision() -> None:
    done = python("import sys, stages, pipeline; print([name for name in ('torch', 'torchvision', 'numpy') if name in sys.modules])")
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.slow
def test_torchvision_works_beside_a_cpu_torch_in_a_fresh_process() -> None:
    done = python("import stages" + NEEDS_HOOK)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_import_that_ended_halfway_can_be_repeated() -> None:
    done = python("import sys\ntry:\n    import torchvision\nexcept RuntimeError:\n    pass\nimport stages" + NEEDS_HOOK)
    assert done.returncode == 0, done.stderr


def test_compiled_operators_that_load_are_left_alone() -> None:
    code = """
import sys, types
from bonsai.stages.imports.torchvision_hook import _declare, _pretend
operators = types.ModuleType("torchvision.extension")
operators._has_ops = there = lambda: True
package = types.ModuleType("torchvision")
package.extension = operators
_declare(operators)
_pretend(package)
assert operators._has_ops is there and "torch" not in sys.modules
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.__version__.endswith("+cpu"), reason="torch is not a CPU build")
def test_a_users_file_builds_a_network_of_timm_in_a_worker_that_is_spawned(tmp_path: Path) -> None:
    (tmp_path / "stranger_timm.py").write_text(
        "import timm\nfrom torch import nn\n\n"
        "def build(in_channels: int, num_classes: int) -> nn.Module:\n"
        "    return timm.create_model('resnet18', pretrained=False, in_chans=in_channels, num_classes=num_classes)\n" + NEEDS_HOOK
    )
    code = (
        "import multiprocessing\nfrom bonsai.stages.imports.registry import resolve\n\n"
        "def count(_):\n    network = resolve('stranger_timm:build', {}, 'model')(in_channels=1, num_classes=7)\n"
        "    return network.fc.weight.shape[0]\n\n"
        "if __name__ == '__main__':\n    with multiprocessing.get_context('spawn').Pool(1) as pool:\n        print(pool.map(count, [0]))\n"
    )
    (tmp_path / "main.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])}
    done = subprocess.run([sys.executable, str(tmp_path / "main.py")], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "[7]\n"), done.stderr
