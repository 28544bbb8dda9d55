"""A network in training, as the store keeps it."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from bonsai.profiles.located_yaml import Record
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.records import Edit, Fuse, KeepChannels, Quantizers
from bonsai.stages.pruning.recovery import Recovery
from bonsai.stages.quantization.records import Quantization
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.tasks.naming import FigureRecord
from bonsai.stages.tasks.registry import metric_named


class History(FigureRecord):
    """One epoch or segment of training, as shown to people.

    Attributes:
        metric: Name of the task's metric.
        validation: The metric on the validation split; stored under the metric's name, as ``validation_<metric>``.
    """

    FORMS: ClassVar = {"validation": "validation_{}"}

    step: int
    epoch: float
    phase: Literal["trunk", "branch", "qat"]
    loss: float
    validation: float


class Start(Record):
    """How a network came to its weights before any training.

    Attributes:
        given: Whether they were given; otherwise they are random.
        entry: Entry of the file that they were taken from; empty where the file has nothing else.
        prefix: What their names had in front.
        fresh: Layers with random weights, because the given ones are for another number of outputs.
        metrics: Of given weights: ``validation_<metric>``.
    """

    given: bool = False
    entry: str = ""
    prefix: str = ""
    fresh: tuple[str, ...] = ()
    metrics: dict[str, float] = {}

    @property
    def sentence(self) -> str:
        """What was taken, for people."""
        if not self.given:
            return "random weights"
        taken = [f"entry {self.entry!r}" if self.entry else "", f"names without {self.prefix!r}" if self.prefix else ""]
        how = ", ".join(filter(None, taken))
        fresh = f"; random in {', '.join(self.fresh)}, where the given ones have another number of outputs" if self.fresh else ""
        found = "".join(f"; {name.replace('_', ' ')} {value:.4f}" for name, value in self.metrics.items())
        return f"given weights{f' ({how})' if how else ''}{fresh}{found}"


class Checkpoint(Artifact):
    """A network in training: architecture and edits as JSON, weights as safetensors.

    Files: ``weights.safetensors``; on a trunk that is trained ``scores.safetensors`` (one vector per criterion and group), where the training averages its
    weights ``average.safetensors``, and beside it an artifact `Moments`; after a cut ``training.safetensors`` (moments, average, loss scale).

    Attributes:
        start: Set before any training (stage `initialise`): how the weights came about.
        edits: Changes to the network that `model` names, in order; empty for a dense network.
        kept: Channels kept by group, as people are shown them; empty for a dense network.
        quantization: Set where there are `quantizers`: how they came about.
        step: Optimizer steps done in the learning-rate cycle.
        recovery: What the training after the last cut took, where its length was its own.
    """

    model: ModelConfig
    num_classes: int
    image_shape: tuple[int, ...]
    start: Start | None = None
    edits: tuple[Edit, ...] = ()
    kept: dict[str, tuple[int, ...]] = {}
    quantization: Quantization | None = None
    step: int = 0
    recovery: Recovery | None = None
    history: tuple[History, ...] = ()
    metrics: dict[str, float] = {}

    def reached(self) -> str:
        """Return how far the training has come and what the validation split says of it, in a few words."""
        if self.start is not None:
            return self.start.sentence
        if not self.history:
            return f"step {self.step}"
        last = self.history[-1]
        metric = metric_named(last.metric)
        return f"epoch {last.epoch:.4g}, validation {metric.label} {metric.written(last.validation)}"

    @property
    def quantizers(self) -> Quantizers | None:
        """The edit that made the network compute as INT8; None where it is in float."""
        return next((edit for edit in self.edits if isinstance(edit, Quantizers)), None)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The residual blocks that were left out."""
        return tuple(block for edit in self.edits if isinstance(edit, KeepChannels) for block in edit.dropped)

    @property
    def fused(self) -> bool:
        """Whether the network was trained in branches that are fused now."""
        return any(isinstance(edit, Fuse) for edit in self.edits)

    def successor(self, folder: Path, *, metrics: Mapping[str, float] | None = None, **changes: object) -> "Checkpoint":
        """Return the record of the same network after another stage, which wrote `folder`."""
        return self.model_copy(update={"folder": folder, "digest": "", "key": "", "metrics": {**self.metrics, **(metrics or {})}, **changes})


class Moments(Artifact):
    """The state of a trunk segment that is needed only to continue the training. It has the segment's key, and can be made again from the trunk.

    Files: ``training.safetensors`` (the optimizer's moments, loss scale), ``statistics.safetensors`` (running averages of the scores), and
    ``penalty.safetensors`` where there is a regulariser.
    """
