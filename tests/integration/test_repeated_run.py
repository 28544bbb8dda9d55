"""A finished run that is repeated: the same answer without torch, and the ordinary way where anything is not as it was."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.repeating import find_finished, key_of
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.store.artifact import MOMENTS
from bonsai.stages.store.finished import FINISHED, recall

CONFIGS = Path(__file__).parent / "configs"
RECIPE, PROFILES = str(CONFIGS / "tiny.yaml"), [str(CONFIGS / f"tiny-{name}.yaml") for name in ("wide", "narrow")]
WORDS = [RECIPE, *(word for profile in PROFILES for word in ("--profile", profile)), "--set", "training.epochs=2", "--set", "quantize.qat=never"]
SETTINGS = {"training.epochs": 2, "quantize.qat": "never"}
TORCH = "torch was imported"
CODE = f"""
import atexit, sys
atexit.register(lambda: print({TORCH!r} if "torch" in sys.modules else "", file=sys.stderr))
sys.argv = ["bonsai", "run", *sys.argv[1:]]
from bonsai.pipeline.cli.main import main
main()
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def bonsai_run(*words: str) -> Ended:
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The store of a run, and how it ended."""
    store = tmp_path_factory.mktemp("repeated") / "store"
    return store, bonsai_run(*WORDS, "--store", str(store))


def answer(store: Path, settings: dict[str, object] = SETTINGS, profiles: Sequence[str] = PROFILES) -> object:
    return find_finished(*load(RECIPE, profiles, settings), store=store, out=None)


def warnings_in(lines: str) -> list[str]:
    return [line.partition("warning: ")[2] for line in lines.splitlines() if "warning: " in line]


def test_a_finished_run_repeated_says_the_same_without_torch(first: tuple[Path, Ended]) -> None:
    store, done = first
    shutil.rmtree(store / "packages")
    again = bonsai_run(*WORDS, "--store", str(store))
    assert (again.code, again.out) == (done.code, done.out)
    assert TORCH in done.err
    assert TORCH not in again.err
    assert "finished already" in again.err
    assert warnings_in(again.err) == warnings_in(done.err)
    assert [read_intact(folder).profile.name for folder in sorted((store / "packages").glob("tiny--*"))] == ["tiny-narrow", "tiny-wide"]


def test_json_and_a_layout_are_those_of_the_ordinary_way(first: tuple[Path, Ended], tmp_path: Path) -> None:
    store = shutil.copytree(first[0], tmp_path / "store")
    words = [*WORDS, "--store", str(store), "--json", "--layout", "ort"]
    quick = bonsai_run(*words)
    shutil.rmtree(store / FINISHED)
    ordinary = bonsai_run(*words)
    assert TORCH in ordinary.err
    assert "finished already" in quick.err  # ONNX Runtime's tools, which write the layout, import torch themselves
    assert quick[:2] == ordinary[:2]
    assert (store / FINISHED).is_dir()  # written anew


def test_one_flipped_bit_anywhere_takes_the_ordinary_way(first: tuple[Path, Ended], tmp_path: Path) -> None:
    store = shutil.copytree(first[0], tmp_path / "store")
    run = recall(store, key_of(*load(RECIPE, PROFILES, SETTINGS)) or "")
    assert run is not None
    assert not [address for address in run.artifacts if address.startswith(MOMENTS)]
    assert {address.partition("/")[0] for address in run.artifacts} >= {"prepare", "train_dense", "prune", "recover", "export", "compile", "measure", "package"}
    files = [file for address in run.artifacts for file in (store / address).rglob("*") if file.is_file() and ".spare" not in file.parts]
    kinds = {(file.relative_to(store).parts[0], file.name): file for file in (*files, *(store / FINISHED).iterdir())}
    assert answer(store) is not None
    for kind, file in kinds.items():
        whole = file.read_bytes()
        file.write_bytes(bytes([*whole[:-20], whole[-20] ^ 1, *whole[len(whole) - 19 :]]) if len(whole) > 20 else whole + b"x")
        assert answer(store) is None, kind
        file.write_bytes(whole)
    assert answer(store) is not None


def test_another_request_takes_the_ordinary_way(first: tuple[Path, Ended]) -> None:
    store, _ = first
    assert answer(store) is not None
    assert answer(store, {**SETTINGS, "training.epochs": 3}) is None
    assert answer(store, profiles=PROFILES[:1]) is None
    assert answer(store, profiles=PROFILES[::-1]) is None
