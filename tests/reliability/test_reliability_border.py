"""Damaged inputs are read, or refused in one short message; nothing else happens, and not for long."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing_texts import PIECES, damaged_texts

from pipeline.recipe import load_recipe
from profiles.errors import BonsaiError
from profiles.loader import load_profile

ROOT = Path(__file__).parents[2]
FEW, MANY = 40, 1_000
YAML = [ROOT / "profiles/t4.yaml", ROOT / "profiles/local-cpu.yaml", ROOT / "pipeline/recipes/resnet-edge.yaml"]


def survives(read: Callable[[], object]) -> bool:
    """Return whether something was read; raise where it ended in anything but one short message."""
    started, message = time.monotonic(), None
    try:
        read()
    except BonsaiError as error:
        message = str(error)
    assert time.monotonic() - started < 10
    assert message is None or len(message.encode("utf-8")) < 40_000
    return message is None


def damage_yaml(original: Path, folder: Path, count: int, seed: int) -> None:
    load = load_profile if original.parent.name == "profiles" else load_recipe
    for text in damaged_texts(original.read_text(), count, seed):
        file = folder / "damaged.yaml"
        file.write_text(text, encoding="utf-8")
        survives(lambda file=file: load(str(file)))


@pytest.mark.parametrize("original", YAML, ids=lambda file: file.stem)
def test_damaged_yaml_is_read_or_refused(original: Path, tmp_path: Path) -> None:
    damage_yaml(original, tmp_path, FEW, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize("original", YAML, ids=lambda file: file.stem)
def test_much_damaged_yaml_is_read_or_refused(original: Path, tmp_path: Path, seed: int) -> None:
    damage_yaml(original, tmp_path, MANY, seed)


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_any_override_is_read_or_refused(piece: str) -> None:
    for key in ("budget", "budget.latency", "name", "tables", "target.device.peak", piece, f"budget.{piece}"):
        survives(lambda key=key: load_profile("local-cpu", {key: piece}))
