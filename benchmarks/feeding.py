"""How fast a set that does not fit in memory is fed, beside a bare PyTorch loop; how much memory it takes, and how long it is hashed and prepared.

The set is a folder of 50,000 hard links to a few drawn JPEGs of 500x375, read at 224 pixels. Both loops decode with Pillow, in as many processes,
and end with normalised inputs in the layout of training. They run in turns: some batches of one, then of the other.

    python benchmarks/feeding.py                  # 50,000 images, 9 rounds
    python benchmarks/feeding.py 2000 3 8         # fewer images, rounds, and batches in a round

Writes benchmarks/results/feeding.json.
"""

import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset

from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.feeding import num_workers
from bonsai.stages.data.part import Part
from bonsai.stages.data.registry import source_digest
from bonsai.stages.data.source import open_part
from bonsai.stages.imports import contents
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store
from bonsai.stages.training.batches import Batches
from bonsai.stages.training.config import TrainConfig

RESULT = Path(__file__).parent / "results" / "feeding.json"
SIZE, BATCH, CLASSES, DRAWN = 224, 64, 10, 16
GOAL_RATIO, GOAL_BYTES = 0.95, 2_000_000_000


def main(images: str = "50000", rounds: str = "9", batches: str = "30") -> None:
    """Measure and write the result."""
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        root = make_links(Path(folder) / "images", int(images))
        data = DataConfig(name="image_folder", options={"root": str(root), "size": SIZE})
        with Memory() as memory:
            first, again = hash_files(data)
            started = time.perf_counter()
            dataset = Store(Path(folder) / "store").run(prepare, data=data, content=source_digest(data))
            prepared = time.perf_counter() - started
            training = TrainConfig(batch_size=BATCH)
            source = open_part(dataset, "train")
            workers = num_workers(training.workers, training.device, decodes=source.decodes)
            ours = (pair[0] for pair in map(Batches(source, training).batch, itertools.count()))
            for _ in itertools.islice(ours, 10):
                pass
            for _ in itertools.islice(Part(dataset, "validation").batches(BATCH), 10):
                pass
            peak = memory.peak
        if int(images) * 3 * SIZE * SIZE > GOAL_BYTES // 8:
            assert dataset.stored == "index"
        print(f"{images} images: hashed in {first:.1f} s, again in {again:.1f} s, prepared in {prepared:.1f} s, peak memory {peak / 1e6:.0f} MB", flush=True)
        bare = bare_loop([str(file) for file in sorted(root.rglob("*.jpg"))], workers)
        found = [race(ours, bare, count=int(batches), ahead=2 * workers, turn=number) for number in range(int(rounds))]
    ratios = sorted(mine / other for mine, other in found)
    result = {
        "what": "images per second of Bonsai's batches over those of a bare DataLoader loop, in turns; memory of all processes (PSS)",
        "images": int(images),
        "size": SIZE,
        "batch_size": BATCH,
        "workers": workers,
        "rounds": len(found),
        "batches_in_a_round": int(batches),
        "images_per_second": {"bonsai": statistics.median(mine for mine, _ in found), "bare": statistics.median(other for _, other in found)},
        "ratio": {"median": statistics.median(ratios), "minimum": ratios[0], "maximum": ratios[-1]},
        "goal": f"ratio at least {GOAL_RATIO}, memory below {GOAL_BYTES / 1e9:g} GB",
        "peak_bytes": peak,
        "hashing_seconds": {"first": first, "again": again},
        "prepare_seconds": prepared,
        "load_before": busy,
        **host_facts(),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"ratio {result['ratio']}, {result['images_per_second']} -> {RESULT}")


def make_links(root: Path, count: int) -> Path:
    """Draw a few JPEGs, and link them into a folder per class under so many names."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    drawn = []
    for number in range(DRAWN):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        noise = Image.fromarray(rng.integers(0, 256, (375, 500, 3), np.uint8)).filter(ImageFilter.GaussianBlur(1))
        drawn.append(root.parent / f"drawn-{number}.jpg")
        Image.blend(coarse, noise, 0.15).save(drawn[-1], quality=90)
    for name in range(CLASSES):
        (root / f"class-{name}").mkdir()
    for number in range(count):
        os.link(drawn[number % DRAWN], root / f"class-{number % CLASSES}" / f"{number:06}.jpg")
    return root


def hash_files(data: DataConfig) -> tuple[float, float]:
    """Return the seconds that hashing takes, the first time and again in the same process."""
    time.sleep(contents.SETTLED_SECONDS)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        source_digest(data)
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1]


class Decoded(Dataset[tuple[torch.Tensor, int]]):
    """What a bare loop has: files that Pillow decodes."""

    def __init__(self, files: list[str]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        with Image.open(self._files[number]) as opened:
            image = opened.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy()), number % CLASSES


def bare_loop(files: list[str], workers: int) -> Iterator[torch.Tensor]:
    """Yield normalised batches without an end."""
    loader = DataLoader(Decoded(files), BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0)
    while True:
        for images, _ in loader:
            yield ((images.float() / 255 - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)


def race(ours: Iterator[torch.Tensor], bare: Iterator[torch.Tensor], *, count: int, ahead: int, turn: int) -> tuple[float, float]:
    """Return the images per second of both loops; what was loaded ahead is not counted, and each comes first in every other turn."""

    def rate(loop: Iterator[torch.Tensor]) -> float:
        for _ in range(ahead + 1):
            next(loop)
        started = time.perf_counter()
        for _ in range(count):
            next(loop)
        return count * BATCH / (time.perf_counter() - started)

    if turn % 2:
        other = rate(bare)
        mine = rate(ours)
    else:
        mine = rate(ours)
        other = rate(bare)
    print(f"round {turn}: bonsai {mine:.0f} images/s, bare {other:.0f} images/s, ratio {mine / other:.3f}", flush=True)
    return mine, other


class Memory:
    """Watches the memory of this process and its children: each page counts once, however many share it (PSS)."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.peak = max(self.peak, sum(map(pss_of, [os.getpid(), *children_of(os.getpid())])))


def children_of(process: int) -> list[int]:
    """Return the children of a process, and theirs."""
    try:
        found = [int(child) for task in Path(f"/proc/{process}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return []
    return found + [grandchild for child in found for grandchild in children_of(child)]


def pss_of(process: int) -> int:
    """Return the bytes of a process; a page that several share counts as a part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
