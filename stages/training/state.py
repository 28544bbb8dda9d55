"""The training state, everything that an optimizer step changes: weights, the optimizer's moments, the average of the weights, the loss scale."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bonsai.profiles.errors import describe
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.loading import load_weights
from bonsai.stages.training.config import TrainConfig

AVERAGE, SCALER = "average.", "scaler."
STEP = "step"
"""AdamW's step counter. It stays on the CPU unless AdamW is fused or capturable."""
MODULE = f"{AVERAGE}module."
"""Prefix of the names of averaged weights; `average.n_averaged` counts the steps."""
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainState:
    """A network in training, on the device of its config.

    Args:
        network: Moved to the device; trained in place.
        config: Optimizer, average, precision and device.
        tensors: Result of `tensors()` of an earlier state, for a network of the same structure; None for a new training.

    Attributes:
        average: The exponential moving average of weights and buffers; None where the config asks for none.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        self.config = config
        self.network = network.to(config.device)
        self.optimizer = make_optimizer(self.network, config)
        self.average = _averaged(self.network, config.ema) if config.ema else None
        self._scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")
        if tensors:
            self.restore(tensors)

    @property
    def deployed(self) -> nn.Module:
        """The network that is evaluated and shipped: the average where there is one."""
        return self.average.module if self.average else self.network

    @contextmanager
    def mixed_precision(self) -> Iterator[None]:
        """Run operators in the config's precision where torch holds that to be safe."""
        with torch.autocast(self.config.device, dtype=AMP_TYPES.get(self.config.precision), enabled=self.config.precision in AMP_TYPES):
            yield

    def backward(self, loss: torch.Tensor) -> bool:
        """Leave the loss's gradients on the parameters and return whether they are finite; a scaled loss overflows now and then."""
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if not self._scaler.is_enabled():
            return True
        self._scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        return bool(torch.nn.utils.get_total_norm(gradients).isfinite())

    def step(self, rate: float) -> None:
        """Take one optimizer step along the gradients and average the weights; a step of overflown gradients is skipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.average:
            self.average.update_parameters(self.network)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return moments (``<moment>.<parameter name>``), average and loss scale on the CPU; the weights are the network's own."""
        names: dict[torch.Tensor, str] = {parameter: name for name, parameter in self.network.named_parameters()}
        found = {
            f"{moment}.{names[parameter]}": value.detach()
            for parameter, state in self.optimizer.state.items()
            for moment, value in state.items()
            if isinstance(value, torch.Tensor)
        }
        found |= {AVERAGE + name: value for name, value in (self.average.state_dict() if self.average else {}).items()}
        found |= {SCALER + name: torch.tensor(float(value), dtype=torch.float64) for name, value in self._scaler.state_dict().items()}
        return {name: value.cpu().contiguous() for name, value in found.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on with what `tensors` returned."""
        parameters = dict(self.network.named_parameters())
        for key, value in tensors.items():
            moment, _, name = key.partition(".")
            if name in parameters and not key.startswith((AVERAGE, SCALER)):
                self.optimizer.state[parameters[name]][moment] = as_moment(moment, value, parameters[name])
        if self.average:
            load_weights(self.average, {key.removeprefix(AVERAGE): value for key, value in tensors.items() if key.startswith(AVERAGE)})
        if self._scaler.is_enabled():
            scale = {key.removeprefix(SCALER): float(value) for key, value in tensors.items() if key.startswith(SCALER)}
            self._scaler.load_state_dict({name: int(value) if name.endswith(("interval", "tracker")) else value for name, value in scale.items()})

    def require_live(self) -> None:
        """Assert that the optimizer holds exactly the network's trainable parameters, and moments of their shapes alone."""
        live = {id(parameter) for parameter in self.network.parameters() if parameter.requires_grad}
        held = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        assert {id(parameter) for parameter in held} == live and len(held) == len(live), "the optimizer holds other parameters than the network"
        for parameter, state in self.optimizer.state.items():
            moments = [value for value in state.values() if isinstance(value, torch.Tensor) and value.ndim]
            assert all(value.shape == parameter.shape for value in moments), "a moment has another shape than its weight"


def as_moment(name: str, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a stored moment where its optimizer expects it: beside its parameter, whose scale may have no dimension, but a step count on the CPU."""
    return value.clone() if name == STEP else torch.empty_like(like).copy_(value)


def _averaged(network: nn.Module, decay: float) -> AveragedModel:
    return AveragedModel(copy_network(network), multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return SGD or AdamW over the network's trainable parameters; vectors (biases, BatchNorm, scales) are not decayed."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


def require_device(config: TrainConfig) -> None:
    """Refuse a device that is not here.

    Raises:
        DeviceUnavailable: The recipe trains on a GPU that torch does not see.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            describe(
                "training.device is not in this machine",
                given=config.device,
                allowed="cpu" if torch.version.cuda else f"cpu: torch {torch.__version__} is built without CUDA",
                fix="set training.device to cpu, or run where torch sees a GPU",
            )
        )


@contextmanager
def reproducible(config: TrainConfig) -> Iterator[None]:
    """Train with deterministic kernels and the recipe's number of threads, so that a repeated run ends bit-equal."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it alone
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
