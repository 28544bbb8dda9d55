"""Pruning to a latency budget in a training loop of one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from bonsai.pipeline.loop.in_hand import Example, Settings, form_of, profile_of, prune_config, require_bare, require_no_graph
from bonsai.pipeline.run.inspecting import dialects_of, inspect
from bonsai.pipeline.run.loading import DEFAULT_STORE
from bonsai.pipeline.run.points import require_no_points
from bonsai.pipeline.run.targets import ReadyTarget, prepare_target
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Precision
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.contents import REPORTS
from bonsai.stages.graph.randomness import require_repeatable
from bonsai.stages.networks.held import hold
from bonsai.stages.networks.packed_inputs import pack_inputs, packed_shape
from bonsai.stages.networks.several_outputs import select_outputs
from bonsai.stages.pruning.config import PruneConfig, require_own_loop
from bonsai.stages.pruning.stepping import SteppingPruner
from bonsai.stages.quantization.config import QuantizeConfig
from bonsai.stages.reporting.content import Report
from bonsai.stages.reporting.making import moment_of, widths_of
from bonsai.stages.reporting.results import forecast_part
from bonsai.stages.reporting.writing import write_pages
from bonsai.stages.store.store import Store


class Pruner(SteppingPruner):
    """Cuts a network in training, with its optimizer and averages, once its structure is stable and as far as a device's budget asks.

        pruner = bonsai.Pruner(model, optimizer, images, target="local-cpu", latency=0.25, steps=total_steps)
        for images, labels in loader:
            criterion(model(images), labels).backward()
            pruner.observe()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()

    The device's latency is measured when the pruner is made, and kept in the store for the next one of the same network.

    Args:
        model: Network that the caller trains, on any device. Pass the bare module, not a wrapped or compiled one.
        optimizer: Its optimizer, of `torch.optim` or any that keeps numbers and tensors of its parameters' shapes.
        example_input: A batch as the network gets it, as for `bonsai.deploy`: a tensor, or a tuple or dict of tensors.
        target: Name of a profile, or the path of a file.
        latency: Budget as a fraction (0-1) of the dense engine's latency; the profile's own where neither budget is given.
        latency_ms: Budget in milliseconds for one inference.
        steps: Optimizer steps of the whole training.
        steps_per_epoch: Optimizer steps of an epoch, for the policy ``epoch``. With 1, an epoch is a step.
        precision: Of the engine that the network is pruned for; the profile's own by default.
        prune: Settings, as a recipe's `prune` has them: a record, or values by dotted key such as ``{"epi.every": 0.02}``.
        outputs: Which outputs of a network that returns several are looked at to find and to check the cut: keys of a dict, fields of a named tuple, or
            places in a tuple. Empty for a network that returns one tensor.
        averages: Moving averages of the network, such as an `AveragedModel`. They are cut with it.
        keep_float: Globs over layers that stay in float beside INT8.
        timing: How long engines are timed.
        store: Folder of what was measured.

    Attributes:
        target: The device, with its latency model and the budget.

    Raises:
        ConfigError: The network cannot be traced, copied or pruned, the settings do not fit, or the training is too short.
        BudgetError: The budget is below the narrowest network's latency.
        DeviceUnavailable: The runtime is not installed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        example_input: Example,
        *,
        steps: int,
        target: str = "local-cpu",
        latency: float | None = None,
        latency_ms: float | None = None,
        steps_per_epoch: int = 1,
        precision: Precision | None = None,
        prune: PruneConfig | Mapping[str, Any] | None = None,
        outputs: Sequence[str] = (),
        averages: Sequence[nn.Module] = (),
        keep_float: Sequence[str] = (),
        timing: TimingConfig | None = None,
        store: str | Path = DEFAULT_STORE,
    ) -> None:
        network, self._inputs = require_bare(model, "the model"), form_of(example_input)
        shape = packed_shape(self._inputs)
        require_no_graph(network, self._inputs)
        profile = profile_of(target, latency=latency, latency_ms=latency_ms, precision=precision)
        require_no_points(profile, what="bonsai.Pruner", why="it chooses widths by one latency. `bonsai run` and `bonsai.deploy` judge every point")
        config = prune_config(prune)
        require_own_loop(config)
        self._outputs = tuple(outputs)
        self._network = network
        copied = self._copy()
        require_repeatable(copied, shape)
        quantize = QuantizeConfig(keep_float=tuple(keep_float))
        settings = Settings(model=hold(copied), prune=config, quantize=quantize, timing=timing or TimingConfig())
        found = inspect(copied, settings, shape, 0, dialects_of([profile]))
        held = Store(Path(store))
        with held.in_use():
            self.target: ReadyTarget = prepare_target(settings, profile, found, held.run)
        super().__init__(
            network,
            optimizer,
            shape,
            chooser=self.target.chooser,
            groups=found.groups,
            averages=averages,
            measure=self.target.time_untrained if self.target.info.present else None,
            doubt=lambda: self.target.timer.doubt,
            steps=steps,
            steps_per_epoch=steps_per_epoch,
        )

    def _copy(self) -> nn.Module:
        copied = super()._copy()
        return pack_inputs(select_outputs(copied, self._outputs) if self._outputs else copied, self._inputs)

    def report(self, folder: str | Path) -> Path:
        """Write a page on the cut: when it was made, the widths, and the latency by operator.

        Args:
            folder: Receives ``report.html`` and ``report.md``.

        Returns:
            The page.

        Raises:
            ConfigError: Nothing was cut yet.
        """
        if self.fit is None or self.trigger is None:
            raise ConfigError(
                describe("there is nothing to report yet", given="a network that was not cut", allowed="one that was", fix="report after the cut")
            )
        dense = self.target.network.dense_widths
        kept = {name: len(channels) for name, channels in self.kept.items() if name in dense}
        forecast = self.target.forecast(kept)
        profile, limit, source = self.target.profile, self.target.limit_ms, self.target.table_source
        rounds = "; ".join(f"{one.measured_ms:.3f} ms at most {one.upper_ms:.3f} ms" for one in self.fit.rounds) or "none was timed"
        told = (
            f"{profile.name}, {profile.target.precision}: budget {limit:.3f} ms, {self.latency_ms:.3f} ms predicted now; latency table: {source}.",
            f"Untrained networks of candidate widths, timed on the device: {rounds}. The trained network is judged by its own engine, in bonsai.deploy.",
        )
        positions = {group.name: group.positions for group in self.target.groups if group.positions > 1}
        parts = (widths_of(dense, self.fit, kept, positions, "w"), moment_of(self.trigger, "e"), forecast_part(forecast, source, "o"))
        write_pages(Path(folder), Report(title="What was pruned", notes=told, summary=parts, chapters=()))
        return Path(folder) / REPORTS[0]

    @property
    def latency_ms(self) -> float:
        """Predicted latency of the network as it is now, in milliseconds, at the target's precision."""
        return self.target.latency({name: len(channels) for name, channels in self.kept.items() if name in self.target.network.dense_widths})
