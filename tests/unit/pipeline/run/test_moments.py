"""The trunk's moments, apart from its segments: freed, damaged, and trained again."""

import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bonsai.pipeline.run.trunk import grow_segment
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.errors import MomentsGone
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import has_moments, load_network, load_training, moments_of
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.config import RegulariserConfig
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.store.garbage import DAY, free
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.store.store import Store, load_artifact
from bonsai.stages.training.config import TrainConfig

STOPS = (2, 4, 6, 8)
CONFIG = TrainConfig(epochs=1, batch_size=64, lr=0.05, warmup_epochs=0.5, threads=1, ema=0.9)


@pytest.fixture
def initial(digits: Dataset, small_model: ModelConfig, store: Store) -> Checkpoint:
    return store.run(initialise, dataset=digits, model=small_model, weights=None)


@pytest.fixture
def inputs(digits: Dataset) -> dict[str, Any]:
    return {"dataset": digits, "training": CONFIG, "regulariser": RegulariserConfig(), "regularised": ()}


@pytest.fixture
def trunk(store: Store, initial: Checkpoint, inputs: dict[str, Any]) -> list[Checkpoint]:
    segments = [initial]
    for stop in STOPS:
        segments.append(grow_segment(inputs, segments[-1], stop, store.run))
    return segments[1:]


def content(segments: list[Checkpoint]) -> dict[str, bytes]:
    files = [file for segment in segments for file in moments_of(segment).glob("*.safetensors")]
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}


def test_a_segment_has_weights_and_scores_and_its_moments_lie_beside_it(trunk: list[Checkpoint], store: Store) -> None:
    names = {file.name for file in trunk[1].folder.glob("*.safetensors")}
    assert names == {"average.safetensors", "scores.safetensors", "weights.safetensors"}
    assert {file.name for file in moments_of(trunk[1]).glob("*.safetensors")} == {"statistics.safetensors", "training.safetensors"}
    assert {folder.name for folder in (store.root / "moments").iterdir()} == {segment.key for segment in trunk}


def test_gc_frees_moments_that_are_old_and_keeps_their_segments_for_the_package(trunk: list[Checkpoint], store: Store) -> None:
    old = time.time() - 10 * DAY
    for file in store.root.glob(f"*/*/{MANIFEST}"):
        os.utime(file, (old, old))
    package = store.root / "packages" / "one--cpu"
    package.mkdir(parents=True)
    lineage = ", ".join(f'{{"artifact": "train_dense/{segment.key}"}}' for segment in trunk)
    (package / MANIFEST).write_text(f'{{"name": "one--cpu", "lineage": [{lineage}]}}')
    freed = free(store.root, keep_days=7)
    assert sorted(item.path for item in freed.waste) == sorted(f"moments/{segment.key}" for segment in trunk)
    assert freed.kept == len(trunk) + 1  # and the network before any training
    assert [load_artifact(Checkpoint, segment.folder) for segment in trunk] == trunk
    load_network(trunk[0])


def test_moments_that_were_freed_are_named_where_a_training_would_go_on(trunk: list[Checkpoint]) -> None:
    shutil.rmtree(moments_of(trunk[1]))
    with pytest.raises(MomentsGone, match=rf"training cannot go on from train_dense/{trunk[1].key}: its moments are gone") as gone:
        load_training(trunk[1], CONFIG)
    assert "bonsai run" in str(gone.value)


@pytest.mark.parametrize(("kept", "told"), [((0, 1), "from step 4, the nearest check that has its own"), ((), "from its beginning")])
def test_a_training_that_goes_on_trains_what_is_gone_again_and_ends_the_same(
    kept: tuple[int, ...], told: str, trunk: list[Checkpoint], store: Store, inputs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = content(trunk)
    for place, segment in enumerate(trunk):
        if place not in kept:
            shutil.rmtree(moments_of(segment))
    shutil.rmtree(trunk[3].folder)
    with caplog.at_level(logging.INFO, logger="bonsai"):
        assert grow_segment(inputs, trunk[2], STOPS[3], store.run) == trunk[3]
    assert f"trunk: the moments of step 6 are gone; training again {told}" in caplog.messages
    assert content(trunk) == before
    assert not (store.root / ".damaged").exists()


def test_damaged_moments_are_set_aside_and_trained_again(trunk: list[Checkpoint], store: Store, inputs: dict[str, Any]) -> None:
    before = content(trunk)
    file = moments_of(trunk[2]) / "training.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 4
    file.write_bytes(damaged)
    assert not has_moments(trunk[2])
    shutil.rmtree(trunk[3].folder)
    assert grow_segment(inputs, trunk[2], STOPS[3], store.run) == trunk[3]
    assert content(trunk) == before
    assert [folder.name for folder in (store.root / ".damaged").iterdir()] == [f"moments-{trunk[2].key}"]


def test_nothing_is_trained_again_while_every_segment_is_there(trunk: list[Checkpoint], initial: Checkpoint, store: Store, inputs: dict[str, Any]) -> None:
    shutil.rmtree(store.root / "moments")
    again = [initial]
    for stop in STOPS:
        again.append(grow_segment(inputs, again[-1], stop, store.run))
    assert again[1:] == trunk
    assert not Path(store.root / "moments").exists()
