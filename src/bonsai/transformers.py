"""Pruning in Hugging Face's trainer: `Trainer(..., callbacks=[bonsai.transformers.Pruning(example_input, latency=0.25)])`."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bonsai.pipeline.loop.in_hand import Example
from bonsai.pipeline.loop.pruner import Pruner
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels

FILE = "bonsai-pruner.pt"
"""What the callback saves beside every checkpoint of the trainer's."""


class Pruning(TrainerCallback):
    """Prunes a network to a latency budget while the trainer trains it, on one device.

    Args:
        example_input: A batch as the network gets it first, such as its pixel values; their values do not matter.
        output: Field of the network's output that the cut is checked by.
        settings: Those of `bonsai.Pruner`: `target`, `latency`, `latency_ms`, `precision`, `prune`, ...; `steps` are the trainer's.

    Attributes:
        pruner: Made when the training begins.
    """

    def __init__(self, example_input: Example, *, output: str = "logits", **settings: Any) -> None:
        self.pruner: Pruner | None = None
        self._example, self._settings = example_input, {"outputs": (output,), **settings}
        self._dense: nn.Module | None = None
        self._saved: dict[str, Any] | None = None

    def resume(self, model: nn.Module, checkpoint: str | Path) -> None:
        """Cut a network as it was at a checkpoint: call it before `trainer.train(resume_from_checkpoint=checkpoint)`, which loads the weights.

        Raises:
            ConfigError: The checkpoint was saved without this callback.
        """
        file = Path(checkpoint) / FILE
        if not file.is_file():
            fix = "name a folder that the trainer has saved while this callback was there"
            raise ConfigError(describe("the checkpoint holds nothing of the pruner", given=checkpoint, allowed=f"a folder with {FILE}", fix=fix))
        self._saved = torch.load(file, map_location="cpu", weights_only=True)
        self._dense = copy_network(model)
        keep_channels(model, KeepChannels.model_validate(self._saved["edit"]))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Make the pruner: from here on the optimizer is there."""
        model, optimizer = given["model"], given["optimizer"]
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
        if args.world_size > 1 or args.n_gpu > 1:
            fix = "use `bonsai.Pruner` in a loop of your own, which docs/your-own-loop.md shows"
            problem = "training on several devices cannot be pruned by this callback"
            raise ConfigError(describe(problem, given=f"{max(args.world_size, args.n_gpu)} devices", allowed="one device", fix=fix))
        settings = {"steps": state.max_steps, **self._settings}
        if self._dense is None or self._saved is None:
            self.pruner = Pruner(model, optimizer, self._example, **settings)
            return
        self.pruner = Pruner(self._dense, SGD(self._dense.parameters(), lr=0.0), self._example, **settings)
        self.pruner.load_state_dict(self._saved)
        self.pruner.adopt(model, optimizer)
        self._dense = self._saved = None

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Add the gradients of a batch."""
        assert self.pruner is not None
        self.pruner.observe()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Count the optimizer's step."""
        assert self.pruner is not None
        self.pruner.step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Save the pruner beside the trainer's checkpoint."""
        assert self.pruner is not None
        torch.save(self.pruner.state_dict(), Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / FILE)
