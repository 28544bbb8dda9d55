"""Several processes that train one network: they score it together, and the first decides for all."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from bonsai.profiles.errors import BonsaiError
from bonsai.stages.pruning.scores import Scores

T = TypeVar("T")


def ranks() -> int:
    """Return the number of processes that train together; 1 where training is not distributed."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def averaged(scores: Scores) -> Scores:
    """Return the means of scores over all ranks, the same on each."""
    if ranks() == 1:
        return scores
    device = _device()
    found = {}
    for name, vector in scores.items():
        total = vector.to(device).clone()
        distributed.all_reduce(total)
        found[name] = (total / ranks()).cpu()
    return found


def decided_by_first(decide: Callable[[], T]) -> T:
    """Return what the first rank decides, or raise on every rank what it raises.

    Raises:
        BonsaiError: From `decide`.
    """
    if ranks() == 1:
        return decide()
    box: list[Any] = [None]
    if distributed.get_rank() == 0:
        try:
            box = [decide()]
        except BonsaiError as error:
            box = [error]
    distributed.broadcast_object_list(box, src=0, device=_device())
    if isinstance(box[0], BonsaiError):
        raise box[0]
    decided: T = box[0]
    return decided


def _device() -> torch.device:
    """Return where the backend's tensors lie: NCCL sends those of a GPU alone."""
    return torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else torch.device("cpu")
