"""Pruning in Lightning's trainer: `Trainer(callbacks=[bonsai.lightning.Pruning(example_input, latency=0.25)])`. The LightningModule stays as it is."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.optim import SGD, Optimizer

from bonsai.pipeline.loop.in_hand import Example
from bonsai.pipeline.loop.pruner import Pruner
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels


class Pruning(Callback):
    """Prunes a network to a latency budget while `trainer.fit` trains it. A fit that goes on from a checkpoint goes on with its cuts.

    Args:
        example_input: A batch as the network gets it; its values do not matter.
        module: Attribute of the LightningModule that holds the network.
        settings: Those of `bonsai.Pruner`: `target`, `latency`, `latency_ms`, `precision`, `prune`, ...; `steps` are the trainer's.

    Attributes:
        pruner: Made when the fit begins.

    Raises:
        ConfigError: At the fit: several optimizers, several devices, an average of the weights; or what `bonsai.Pruner` refuses.
    """

    def __init__(self, example_input: Example, *, module: str = "model", **settings: Any) -> None:
        self.pruner: Pruner | None = None
        self._example, self._module, self._settings = example_input, module, settings
        self._steps = 0
        self._dense: nn.Module | None = None
        self._saved: dict[str, Any] | None = None
        self._put_back: Callable[[], None] = lambda: None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the network be cut as a checkpoint's was, before Lightning loads the checkpoint's weights."""
        own = pl_module.on_load_checkpoint
        self._saved = None

        def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
            self._cut_as(checkpoint.get("callbacks", {}).get(self.state_key), pl_module)
            own(checkpoint)

        pl_module.on_load_checkpoint = on_load_checkpoint  # type: ignore[method-assign]  # Lightning asks the module, and no callback, in time
        self._put_back = lambda: setattr(pl_module, "on_load_checkpoint", own)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the LightningModule's own hook as it was."""
        self._put_back()

    def _cut_as(self, saved: dict[str, Any] | None, pl_module: LightningModule) -> None:
        if not saved:
            return
        network, edit = self._network(pl_module), KeepChannels.model_validate(saved["edit"])
        if self.pruner is None:
            self._saved, self._dense = saved, copy_network(network)
        if self.pruner is None or self.pruner.edit != edit:
            keep_channels(network, edit)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the pruner: from here on the optimizer is there."""
        optimizer = _only_optimizer(trainer)
        network, settings = self._network(pl_module), {"steps": int(trainer.estimated_stepping_batches), **self._settings}
        if self._saved is None or self._dense is None:
            self.pruner = self.pruner or Pruner(network, optimizer, self._example, **settings)
        else:
            self.pruner = Pruner(self._dense, SGD(self._dense.parameters(), lr=0.0), self._example, **settings)
            self.pruner.load_state_dict(self._saved)
            self.pruner.adopt(network, optimizer)
            self._dense = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where the training stands."""
        self._steps = trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the gradients of a batch, which are unscaled here."""
        assert self.pruner is not None
        self.pruner.observe()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the optimizer's step, if it was one."""
        assert self.pruner is not None
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self.pruner.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return self.pruner.state_dict() if self.pruner else {}

    def _network(self, pl_module: LightningModule) -> nn.Module:
        try:
            return pl_module.get_submodule(self._module)
        except AttributeError as error:
            names = [name for name, _ in pl_module.named_children()]
            problem, fix = "the LightningModule has no network of this name", "name the attribute that holds it: Pruning(..., module=...)"
            raise ConfigError(describe(problem, given=self._module, allowed=names, fix=fix)) from error


def _only_optimizer(trainer: Trainer) -> Optimizer:
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]  # Lightning's own list
    problem, given, allowed = "", "", ""
    if len(trainer.optimizers) != 1:
        problem, given, allowed = "a network with several optimizers cannot be pruned", f"{len(trainer.optimizers)} optimizers", "one"
    elif not isinstance(trainer.strategy, SingleDeviceStrategy):
        problem, given, allowed = "training on several devices cannot be pruned by this callback", type(trainer.strategy).__name__, "one device"
    elif averages:
        problem, given, allowed = "an average of the weights would keep the network that was not cut", type(averages[0]).__name__, "a trainer without"
    if problem:
        fix = "change the trainer, or use `bonsai.Pruner` in a loop of your own, which docs/your-own-loop.md shows"
        raise ConfigError(describe(problem, given=given, allowed=allowed, fix=fix))
    return trainer.optimizers[0]
