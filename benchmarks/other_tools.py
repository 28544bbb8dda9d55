"""Other tools and Bonsai on one trained network: each function is the tool's own snippet, of its documentation in 2026, followed by the same fine-tuning.

Every function returns the network, and the ONNX file where the tool writes one of its own. `coming_from.py` measures both, and `docs/coming-from.md`
shows the same lines.
"""

import json
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

import bonsai

Made = tuple[nn.Module, Path | None]


class Work(Protocol):
    """What a snippet is given beside the trained network.

    Attributes:
        example: A batch as the network gets it, (2, c, h, w).
        loader: Batches of images and labels.
    """

    example: torch.Tensor
    loader: DataLoader[Any]

    def finetune(self, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int = ..., after_backward: Callable[[], object] = ...) -> None:
        """Train some epochs, two by default."""

    def evaluate(self, run: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return for every test image whether a network is right."""


class Tool(NamedTuple):
    """A snippet and where it is from; the version stands in its title, and is given for what pip knows no version of."""

    title: str
    snippet: Callable[[nn.Module, Work], Made]
    package: str
    source: str
    version: str | None = None


def dense(model: nn.Module, work: Work) -> Made:
    """Train the dense network as long as the others, for comparison."""
    work.finetune(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    return model, None


def bonsai_pruner(model: nn.Module, work: Work) -> Made:
    """Prune to half of the FP32 engine's latency."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    pruner = bonsai.Pruner(model, optimizer, work.example, latency=0.5, precision="fp32", steps=2 * len(work.loader), prune={"criterion": "magnitude_l2"})
    pruner.cut()
    work.finetune(model, optimizer)
    return model, None


def bonsai_quantize(model: nn.Module, work: Work) -> Made:
    """Calibrate INT8."""
    work.finetune(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    quantized = bonsai.quantize(model, work.example, calibration=work.loader)
    package = bonsai.deploy(quantized, work.example, latency_ms=10, evaluate=work.evaluate, samples=work.loader)
    return model, package.folder / "model.onnx"


def bonsai_both(model: nn.Module, work: Work) -> Made:
    """Prune for INT8, and calibrate it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    pruner = bonsai.Pruner(model, optimizer, work.example, latency=0.25, steps=2 * len(work.loader), prune={"criterion": "magnitude_l2"})
    pruner.cut()
    work.finetune(model, optimizer)
    quantized = bonsai.quantize(model, work.example, calibration=work.loader)
    package = bonsai.deploy(quantized, work.example, latency_ms=10, evaluate=work.evaluate, samples=work.loader)
    return model, package.folder / "model.onnx"


def torch_pruning(model: nn.Module, work: Work) -> Made:
    """Remove half of every layer's channels."""
    import torch_pruning as tp

    importance = tp.importance.GroupMagnitudeImportance(p=2)
    ignored = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    pruner = tp.pruner.BasePruner(model, work.example, importance=importance, pruning_ratio=0.5, ignored_layers=ignored)
    pruner.step()
    work.finetune(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    return model, None


def torchao(model: nn.Module, work: Work, reg_lambda: float = 2e-4) -> Made:
    """Train with an optimizer that shrinks whole rows of weights to zero."""
    from torchao.prototype.pat.optim import PruneOptimizer

    weights = [parameter for name, parameter in model.named_parameters() if name.endswith("weight") and parameter.dim() > 1]
    others = [parameter for name, parameter in model.named_parameters() if not name.endswith("weight") or parameter.dim() == 1]
    groups: list[dict[str, Any]] = [{"params": weights, "group_type": "Dim0Grouper", "prox_type": "ProxGroupLasso"}, {"params": others}]
    sgd = torch.optim.SGD(groups, lr=0.02, momentum=0.9)
    optimizer = PruneOptimizer(sgd, warmup_steps=10, reg_lambda=reg_lambda)
    work.finetune(model, optimizer)
    return model, None


def pruning_aware_training(model: nn.Module, work: Work) -> Made:
    """Mask for an epoch, remove, and train for another."""
    from torch_pruning.pruning_utils import Pruning

    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    Path("pruning_config.json").write_text(json.dumps({"channel_sparsity_args": {**PAT_CONFIG, "layers": layers, "input_shape": list(work.example.shape)}}))
    pruner = Pruning(model, ".")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    pruner.prune(model, epoch=0)
    work.finetune(model, optimizer, epochs=1, after_backward=lambda: pruner.channel_regularize(model))
    pruner.prune(model, epoch=1, mask_only=False)
    work.finetune(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), epochs=1)
    return model, None


PAT_CONFIG: dict[str, Any] = {
    "is_prune": True,
    "global_pruning": False,
    "block_size": 1,
    "start_epoch": 0,
    "end_epoch": 1,
    "epoch_rate": 1,
    "global_prune_rate": 0.5,
    "max_pruning_rate": 0.9,
    "mac_target": 0.0,
    "pruning_method": "GroupNormPruner",
    "prune_channels_at_init": False,
    "infer": False,
    "regularize": {"reg": 5e-4, "mac_reg": 0.0},
    "MAC_params": {"use_macs": False},
}
"""The keys that `Pruning` reads, as its `reproduce/README.md` explains them."""


def fasterai(model: nn.Module, work: Work) -> Made:
    """Remove half of every layer's filters."""
    from fasterai.core.criteria import large_final
    from fasterai.prune.pruner import Pruner

    pruner = Pruner(model, pruning_ratio=0.5, context="local", criteria=large_final, example_inputs=work.example)
    pruner.prune_model()
    work.finetune(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    return model, None


def nncf_prune(model: nn.Module, work: Work) -> Made:
    """Set 70 % of the weights to zero."""
    import nncf

    pruned = nncf.prune(model, mode=nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL, ratio=0.7, examples_inputs=work.example)
    work.finetune(pruned, torch.optim.SGD(pruned.parameters(), lr=0.02, momentum=0.9))
    pruned = nncf.strip(pruned, strip_format=nncf.StripFormat.IN_PLACE)
    return pruned, None


def nncf_quantize(model: nn.Module, work: Work) -> Made:
    """Calibrate INT8."""
    import nncf
    import onnx

    work.finetune(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    torch.onnx.export(model.eval(), (work.example[:1],), "float.onnx", input_names=["input"], dynamo=False)
    calibration = nncf.Dataset(work.loader, lambda batch: {"input": batch[0][:1].numpy()})
    onnx.save(nncf.quantize(onnx.load("float.onnx"), calibration), "nncf.onnx")
    return model, Path("nncf.onnx")


def modelopt_prune(model: nn.Module, work: Work) -> Made:
    """Search the sub-network of best accuracy within 60 % of the FLOPs."""
    import modelopt.torch.prune as mtp

    def accuracy(network: nn.Module) -> float:
        with torch.no_grad():
            return sum(int((network(images).argmax(1) == labels).sum()) for images, labels in islice(work.loader, 8))

    config = {"data_loader": work.loader, "score_func": accuracy, "checkpoint": "fastnas.pth"}
    model, _ = mtp.prune(model=model, mode="fastnas", constraints={"flops": "60%"}, dummy_input=work.example, config=config)
    work.finetune(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    return model, None


def modelopt_quantize(model: nn.Module, work: Work) -> Made:
    """Calibrate INT8."""
    import modelopt.torch.quantization as mtq

    def calibrate(network: nn.Module) -> None:
        for images, _ in work.loader:
            network(images)

    work.finetune(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    quantized = mtq.quantize(model.eval(), mtq.INT8_DEFAULT_CFG, calibrate)
    torch.onnx.export(quantized, (work.example[:1],), "modelopt.onnx", input_names=["input"], dynamo=False)
    return model, Path("modelopt.onnx")


NNCF = "github.com/openvinotoolkit/nncf docs/usage"
PAT = "github.com/AvrahamRaviv/PruningAwareTraining"
TOOLS: dict[str, Tool] = {
    "dense": Tool("torch {version}", dense, "torch", ""),
    "bonsai-pruner": Tool("Bonsai {version}", bonsai_pruner, "bonsai-compress", "docs/your-own-loop.md"),
    "bonsai-quantize": Tool("Bonsai {version}", bonsai_quantize, "bonsai-compress", "docs/your-own-loop.md"),
    "bonsai-both": Tool("Bonsai {version}", bonsai_both, "bonsai-compress", "docs/your-own-loop.md"),
    "torch-pruning": Tool("Torch-Pruning {version}", torch_pruning, "torch-pruning", "github.com/VainF/Torch-Pruning README.md"),
    "torchao": Tool("torchao {version}", torchao, "torchao", "github.com/pytorch/ao torchao/prototype/pat/README.md"),
    "torchao-strong": Tool("torchao {version}, `reg_lambda=0.1`", partial(torchao, reg_lambda=0.1), "torchao", "the same, with a stronger regularisation"),
    "pruning-aware-training": Tool("PruningAwareTraining {version}", pruning_aware_training, PAT, f"{PAT} reproduce/README.md", version="commit 5a3b22a"),
    "fasterai": Tool("fasterai {version}", fasterai, "fasterai", "github.com/FasterAI-Labs/fasterai nbs/tutorials/prune/pruner.ipynb"),
    "nncf-prune": Tool("NNCF {version}", nncf_prune, "nncf", f"{NNCF}/training_time_compression/pruning/Usage.md"),
    "nncf-quantize": Tool("NNCF {version}", nncf_quantize, "nncf", f"{NNCF}/post_training_compression/post_training_quantization/Usage.md"),
    "modelopt-prune": Tool("ModelOpt {version}", modelopt_prune, "nvidia-modelopt", "github.com/NVIDIA/Model-Optimizer docs/source/guides/3_pruning.rst"),
    "modelopt-quantize": Tool("ModelOpt {version}", modelopt_quantize, "nvidia-modelopt", "nvidia.github.io/Model-Optimizer getting_started: quantization"),
}
