"""Damaged inputs are read, or refused in one short message; nothing else happens, and not for long."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fuzzing_texts import PIECES, damaged_texts, damaged_values
from torch import nn

from bonsai.pipeline.cli.lineage_tree import draw, read_family
from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.starting.foreign import read_pruning_config
from bonsai.profiles.errors import BonsaiError
from bonsai.profiles.latency import Entry, LatencyTable, TableMeta
from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.data.checking import check_loaded
from bonsai.stages.data.registry import LoadedImages
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.delivery.sums import SUMS, write_sums
from bonsai.stages.reporting.writing import write_reports
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

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


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize("original", YAML, ids=lambda file: file.stem)
def test_much_damaged_yaml_is_read_or_refused(original: Path, tmp_path: Path, seed: int) -> None:
    damage_yaml(original, tmp_path, MANY, seed)


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_any_override_is_read_or_refused(piece: str) -> None:
    for key in ("budget", "budget.latency", "name", "tables", "target.device.peak", piece, f"budget.{piece}"):
        survives(lambda key=key: load_profile("local-cpu", {key: piece}))


def a_table(file: Path) -> str:
    conv = OperatorClass(op="conv", kernel=3, height=8, width=8)
    entries = [Entry(operator=conv, ci=ci, co=co, p10_us=1, p50_us=2 + ci, reps=9, kernels="k") for ci in (8, 16) for co in (8, 16)]
    facts = {"source": "measured", "device": "d", "runtime": "r", "runtime_version": "1", "precision": "int8", "batch": 1, "threads": 1, "step": 8}
    LatencyTable(TableMeta.model_validate({**facts, "clock": "c", "statistic": "s", "date": "2026-01-01"}), entries).save(file)
    return file.read_text()


def damage_table(folder: Path, count: int, seed: int) -> None:
    for text in damaged_texts(a_table(folder / "whole.csv"), count, seed):
        (folder / "damaged.csv").write_text(text, encoding="utf-8")
        survives(lambda: LatencyTable.load(folder / "damaged.csv").lookup_ms(OperatorClass(op="conv", kernel=3, height=8, width=8), 12, 8))


def damage_package(package: Path, count: int, seed: int) -> None:
    """Damage a manifest, make the sums right again, and read it as `show`, `report`, `verify` and `layout` do."""
    whole = json.loads((package / MANIFEST).read_text())
    for facts in damaged_values(whole, count, seed):
        (package / MANIFEST).write_text(json.dumps(facts))
        write_sums(package)
        survives(lambda: draw(read_family(str(package), package / "no store")))
        survives(lambda: write_reports(package.parent / "report", [read_intact(package)], title="t"))


def damage_artifact(store: Path, count: int, seed: int) -> None:
    manifest = store / "quantize" / "0123" / MANIFEST
    manifest.parent.mkdir(parents=True)
    whole = {
        "stage": "quantize",
        "figures": "ptq, validation top-1 90.00%",
        "inputs": {"final": {"artifact": "recover/4567"}, "many": [{"artifact": "x/y"}]},
        "seconds": 1.5,
    }
    for facts in damaged_values(whole, count, seed):
        manifest.write_text(json.dumps(facts))
        survives(lambda: draw(read_family(str(manifest.parent), store)))


def damage_pruning_config(folder: Path, count: int, seed: int) -> None:
    layers = {"start_epoch": 0, "end_epoch": 9, "epoch_rate": 3, "layers": ["0"], "pruning_method": "BNScalePruner", "max_pruning_rate": 0.5}
    whole = {"channel_sparsity_args": {**layers, "regularize": {"reg": 1e-4, "gamma": 1}, "mac_target": 0.3}, "slice_sparsity_args": {"is_prune": True}}
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    for facts in damaged_values(whole, count, seed):
        (folder / "config.json").write_text(json.dumps(facts))
        survives(lambda: read_pruning_config(folder / "config.json")(network, 10))
    for text in damaged_texts(json.dumps(whole), count, seed):
        (folder / "config.json").write_text(text)
        survives(lambda: read_pruning_config(folder / "config.json")(network, 10))


def test_damaged_tables_are_read_or_refused(tmp_path: Path) -> None:
    damage_table(tmp_path, FEW, seed=1)


def test_damaged_packages_are_read_or_refused(package: Path) -> None:
    damage_package(package, FEW, seed=1)


def test_damaged_artifacts_are_shown_or_refused(tmp_path: Path) -> None:
    damage_artifact(tmp_path, 10 * FEW, seed=1)


def test_damaged_pruning_configs_are_read_or_refused(tmp_path: Path) -> None:
    damage_pruning_config(tmp_path, FEW, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 5))
def test_whatever_is_much_damaged_is_read_or_refused(package: Path, tmp_path: Path, seed: int) -> None:
    damage_table(tmp_path, MANY, seed)
    damage_package(package, MANY, seed)
    damage_artifact(tmp_path / "store", MANY, seed)
    damage_pruning_config(tmp_path, MANY, seed)


def damage_sums(package: Path, count: int, seed: int) -> None:
    whole = (package / SUMS).read_text()
    for text in damaged_texts(whole, count, seed):
        (package / SUMS).write_text(text, encoding="utf-8")
        survives(lambda: read_intact(package))


def odd_datasets(count: int, seed: int) -> Iterator[LoadedImages]:
    """Yield what a loader may return: right in most parts, odd in one or two."""
    rng = random.Random(seed)
    kinds = (torch.uint8, torch.int8, torch.int32, torch.int64, torch.uint16, torch.float16, torch.float32, torch.float64, torch.bool, torch.complex64)
    shapes = ((6, 3, 8, 8), (6, 8, 8, 3), (6, 8, 8), (6, 0, 8, 8), (0, 3, 8, 8), (6,), (), (6, 1, 1, 1))
    labels = (torch.arange(6) % 2, torch.arange(6), torch.zeros(6), torch.ones(5).long(), torch.zeros(6, 2).long(), torch.tensor(1), None, [0, 1])
    classes = (("a", "b"), ("a", "a"), (), None, ("a", 1), ("", "b"), "ab", ["a\n", "\u202e"])
    ranges = (None, (0, 1), (0, 255), (1, 0), (0, float("nan")), "x", (0,), (-1e308, 1e308))
    for _ in range(count):
        shape, kind = rng.choice((shapes[0], *shapes)), rng.choice((torch.uint8, *kinds))
        images = (torch.rand(shape) * rng.choice((1, 255, 1e30))).to(kind)
        parts = rng.choice((None, None, torch.zeros(6).long(), torch.ones(6).long(), torch.zeros(2)))
        yield LoadedImages(images, rng.choice((labels[0], *labels)), rng.choice((classes[0], *classes)), "own", parts, rng.choice(ranges))  # type: ignore[arg-type]


def check_datasets(count: int, seed: int) -> None:
    for loaded in odd_datasets(count, seed):
        if survives(lambda loaded=loaded: check_loaded(loaded, "mine", CLASSIFICATION)):
            found = check_loaded(loaded, "mine", CLASSIFICATION)
            assert found.images.dtype == torch.uint8
            assert found.labels.dtype == torch.int64
            assert len(found.images) == len(found.labels)
            assert int(found.labels.max()) < len(found.classes)


def test_damaged_sums_are_read_or_refused(package: Path) -> None:
    damage_sums(package, FEW, seed=1)


def test_odd_datasets_are_taken_or_refused() -> None:
    check_datasets(10 * FEW, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 5))
def test_many_odd_datasets_and_sums_are_taken_or_refused(package: Path, seed: int) -> None:
    damage_sums(package, MANY, seed)
    check_datasets(10 * MANY, seed)
