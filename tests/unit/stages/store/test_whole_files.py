"""Files that cannot be written to their end leave nothing behind."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from bonsai.pipeline.run.publish import replace_folder
from bonsai.stages.store.room import require_room
from bonsai.stages.store.tensor_files import written_plainly
from bonsai.stages.store.whole_files import write_whole

ROOT = str(Path(__file__).parents[4])


def limited(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python lines in a process that may write files of 4,000 bytes at most."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    return subprocess.run([sys.executable, "-c", limit + script, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


def test_tensors_that_do_not_fit_are_an_error_of_the_system_and_leave_nothing(tmp_path: Path) -> None:
    script = """
import errno, sys, torch
from pathlib import Path
from bonsai.stages.networks.checkpoints import save_tensors
try:
    save_tensors(Path(sys.argv[1]), {"a": torch.zeros(9999)})
except OSError as error:
    print(errno.errorcode[error.errno], error.filename)
"""
    done = limited(script, str(tmp_path / "a.safetensors"))
    assert done.stdout == f"EFBIG {tmp_path / 'a.safetensors'}\n", done.stderr
    assert list(tmp_path.iterdir()) == []


NETWORK = """
import errno, sys, numpy as np, onnx
from onnx import helper, numpy_helper
from pathlib import Path
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.onnxruntime_engine import OnnxRuntimeBackend
values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 60]) for name in ("input", "logits")]
weight = numpy_helper.from_array(np.random.rand(60, 60).astype(np.float32), "weight")
graph = helper.make_graph([helper.make_node("MatMul", ["input", "weight"], ["logits"])], "g", values[:1], values[1:], [weight])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
target = load_profile("local-cpu").target
folder = Path(sys.argv[1])
"""


def test_an_engine_that_does_not_fit_is_an_error_of_the_system_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", f"{NETWORK}onnx.save(model, folder / 'elsewhere.onnx')", str(tmp_path)], check=True, cwd=ROOT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    build = """
try:
    OnnxRuntimeBackend().build(folder / "model.onnx", folder / "engine.onnx", target, (1, 6, 10))
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    done = limited(NETWORK + build, str(tmp_path / "out"))
    assert done.stdout == "EFBIG\n", done.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_a_profile_that_does_not_fit_is_an_error_of_the_system_and_leaves_nothing(tmp_path: Path) -> None:
    profile = """
profiled = OnnxRuntimeBackend().open_profiled(model.SerializeToString(), target, folder)
for _ in range(60):
    profiled.run({"input": np.zeros((1, 60), np.float32)})
try:
    profiled.finish()
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    done = limited(NETWORK + profile, str(tmp_path))
    assert done.stdout == "EFBIG\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tensors_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with written_plainly(tmp_path / "a"):
            save_file({"a": torch.zeros(1)}, tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SafetensorError("a fault of its own")])
def test_a_save_that_is_stopped_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)), written_plainly(tmp_path / "a"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "one")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud800")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "one"


def test_a_folder_that_cannot_be_filled_leaves_the_one_before(tmp_path: Path) -> None:
    replace_folder(tmp_path / "package", lambda fresh: (fresh / "a").write_text("one"))

    def stopped(fresh: Path) -> None:
        (fresh / "a").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_folder(tmp_path / "package", stopped)
    assert {file.name for file in tmp_path.iterdir()} == {"package", ".lock-package"}
    assert (tmp_path / "package" / "a").read_text() == "one"


def test_room_is_told_by_writing(tmp_path: Path) -> None:
    require_room(tmp_path, 3 << 20)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as full:
            require_room(tmp_path, 1001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert full.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
