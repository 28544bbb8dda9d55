"""One flipped bit in a finished store: the next run ends with the engine, and the digests, of the undisturbed one."""

import logging
import shutil
from pathlib import Path

import pytest

from bonsai import compress
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.store.artifact import MOMENTS
from bonsai.stages.store.manifest import MANIFEST, SPARE

CONFIGS = Path(__file__).parents[1] / "integration" / "configs"
RECIPE, PROFILE = str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-cpu.yaml")
SETTINGS = {
    "timing": {"runs": 200, "fitting": 2, "tries": 1, "warmup_runs": 20, "warmup_seconds": 0.05, "verdict": {"processes": 3, "most": 3}},
    "training.epochs": 2,
    "prune.rounds": 1,
    "quantize.qat": "never",
    "profile.budget.latency": 0.9,
}
SAMPLE = (
    "prepare/*/train.safetensors",
    f"prepare/*/{MANIFEST}",
    "characterize/*/table.csv",
    f"train_dense/*/{MANIFEST}",
    "train_dense/*/weights.safetensors",
    "recover/*/weights.safetensors",
    "compile/*/engine.onnx",
    "measure/*/*.safetensors",
    f"time_engine/*/{MANIFEST}",
    "package/*/package/engine.onnx",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Package]:
    """A store, and what its run ended with; put right after every test."""
    root = tmp_path_factory.mktemp("finished") / "store"
    return root, run(root)


def run(root: Path) -> Package:
    (package,) = compress(RECIPE, PROFILE, SETTINGS, store=root)
    return package


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1 << len(content) % 8
    file.write_bytes(content)


def own_files(root: Path) -> dict[str, bytes]:
    """Return the files of all artifacts by name: no locks, packages or what was set aside, and no spare copies."""
    files = [file for file in root.glob("[!.]*/*/**/*") if file.is_file() and SPARE not in file.parts and file.parts[len(root.parts)] != "packages"]
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


@pytest.mark.slow
def test_a_run_with_flipped_files_of_every_kind_ends_as_an_undisturbed_one(finished: tuple[Path, Package]) -> None:
    root, undisturbed = finished
    before = own_files(root)
    flipped = [sorted(root.glob(pattern))[-1] for pattern in SAMPLE]
    for file in flipped:
        flip(file)
    assert run(root) == undisturbed
    assert own_files(root) == before
    assert {folder.name for folder in (root / ".damaged").iterdir()} == {"-".join(file.relative_to(root).parts[:2]) for file in flipped}


@pytest.mark.long
def test_a_run_with_any_one_file_flipped_ends_as_an_undisturbed_one(finished: tuple[Path, Package]) -> None:
    root, undisturbed = finished
    before = own_files(root)
    shutil.rmtree(root / ".damaged", ignore_errors=True)
    for name in before:
        if name.startswith(f"{MOMENTS}/"):  # nobody looks at them where all that follows is finished
            continue
        flip(root / name)
        assert run(root) == undisturbed, name
        assert own_files(root) == before, name
        set_aside = [folder.name for folder in (root / ".damaged").iterdir()]
        assert set_aside == ["-".join(Path(name).parts[:2])], name
        shutil.rmtree(root / ".damaged")


@pytest.mark.long
def test_a_target_that_fires_where_the_moments_are_gone_trains_them_again_and_says_so(
    finished: tuple[Path, Package], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(finished[0], tmp_path / "store")
    other = {**SETTINGS, "prune.criterion": "magnitude_l2"}
    (undisturbed,) = compress(RECIPE, PROFILE, other, store=finished[0])
    shutil.rmtree(root / MOMENTS)
    for stage in ("benchmark", "measure", "time_engine"):  # what is measured is found again only if all else is made to the same bytes
        shutil.copytree(finished[0] / stage, root / stage, dirs_exist_ok=True)
    with caplog.at_level(logging.INFO, logger="bonsai"):
        (package,) = compress(RECIPE, PROFILE, other, store=root)
    assert package.engine_sha256 == undisturbed.engine_sha256
    assert any("are gone; training again from its beginning" in line for line in caplog.messages)
