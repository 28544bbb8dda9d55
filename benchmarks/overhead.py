"""What the trunk costs beside a bare PyTorch loop: scores of every criterion, segments on disk, selection and EPI.

One epoch of each in turns, in one process: the bare loop (batches, forward, backward, optimizer), and the same epoch as
trunk segments, each ended by a check of one target.

    python benchmarks/overhead.py                                # `resnet-edge`: epochs of 18 batches, the worst case; two minutes
    python benchmarks/overhead.py benchmarks/arena.yaml 3        # epochs of 96 batches, three pairs; five minutes

Each writes its part of benchmarks/results/overhead.json.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional

from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.targets import prepare_target
from bonsai.pipeline.run.trunk import Monitor, trunk_inputs
from bonsai.stages.backends.registry import check_target
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.registry import source_digest
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import build
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.training.batches import Batches, load_split
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.evaluation import evaluate
from bonsai.stages.training.rates import learning_rate
from bonsai.stages.training.state import make_optimizer, reproducible

RESULT = Path(__file__).parent / "results" / "overhead.json"


def main(name: str = "resnet-edge", pairs_wanted: str = "9") -> None:
    """Time the pairs and write the result."""
    count = int(pairs_wanted)
    recipe, (profile,) = load(name, "local-cpu", {"training.threads": 2})
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        dataset = store.run(prepare, data=recipe.data, content=source_digest(recipe.data))
        target = prepare_target(recipe, profile, inspect_network(recipe, dataset.image_shape, len(dataset.classes)), store.run)
        monitor, segment = Monitor(target, recipe.prune), store.run(initialise, dataset=dataset, model=recipe.model, weights=None)
        bare_network = build(recipe.model, dataset.image_shape, len(dataset.classes))
        bare = Bare(bare_network, dataset, recipe.training)
        pairs = []
        inputs = trunk_inputs(recipe, dataset, target.groups)
        for epoch in range(count + 1):
            plain = timed(lambda: bare.train(epoch))  # noqa: B023  # called at once
            started = time.perf_counter()
            for half in (1, 2):
                stop = epoch * bare.per_epoch + half * bare.per_epoch // 2
                segment = store.run(train_dense, **inputs, previous=segment, stop=stop)
                monitor.check(segment, epoch=epoch + half / 2, latest=False)
            pairs.append((plain, time.perf_counter() - started))
            print(f"epoch {epoch}: bare {plain:.2f} s, trunk {pairs[-1][1]:.2f} s, ratio {pairs[-1][1] / plain:.3f}", flush=True)
        same = equal_weights(bare_network, segment)
    ratios = sorted(trunk / plain for plain, trunk in pairs[1:])  # the first pair warms up
    result = {
        "what": "an epoch as trunk segments over the same epoch of a bare loop that validates once, wall time",
        "recipe": recipe.name,
        "pairs": count,
        "batches_per_epoch": bare.per_epoch,
        "ratio": {"median": statistics.median(ratios), "minimum": ratios[0], "maximum": ratios[-1]},
        "goal": "at most 1.05",
        "both_end_with_equal_weights": same,
        "device": check_target(profile.target).model_dump(mode="json"),
        **host_facts(),
    }
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**known, recipe.name: result}, indent=2) + "\n")
    print(json.dumps(result["ratio"]))


class Bare:
    """The loop that anybody would write, with a validation after every epoch."""

    def __init__(self, network: torch.nn.Module, dataset: Dataset, config: TrainConfig) -> None:
        self.network, self.config = network, config
        self.batches = Batches(PreparedImages(dataset, "train"), config)
        self.per_epoch = self.batches.per_epoch
        self.optimizer = make_optimizer(network, config)
        self.validation = load_split(dataset, "validation")

    def train(self, epoch: int) -> None:
        """Train one epoch."""
        with reproducible(self.config):
            self.network.train()
            for step in range(epoch * self.per_epoch, (epoch + 1) * self.per_epoch):
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(step, self.config, self.per_epoch)
                images, labels = self.batches.batch(step)
                loss = functional.cross_entropy(self.network(images), labels)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                self.optimizer.step()
            evaluate(self.network, *self.validation, CLASSIFICATION)


def timed(call: object) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - started


def equal_weights(network: torch.nn.Module, segment: Checkpoint | None) -> bool:
    """Return whether the trunk's weights are those of the bare loop, bit by bit."""
    from bonsai.stages.networks.checkpoints import load_network

    assert segment is not None
    other = load_network(segment).state_dict()
    return all(torch.equal(value, other[name]) for name, value in network.state_dict().items())


if __name__ == "__main__":
    main(*sys.argv[1:])
