"""Calls a caller's `evaluate` on a torch network or an engine, by one kind of function: from arrays to arrays."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from bonsai.pipeline.loop.building import Built
from bonsai.pipeline.loop.exporting import InHand
from bonsai.pipeline.loop.outputs import as_arrays
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Target
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.running import joined
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.measurement.scores import Scores, require_alike
from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.packed_inputs import pack_inputs
from bonsai.stages.tasks.task import TensorSpec, separate
from bonsai.stages.training.progress import say

Run = Callable[[Any], Any]
"""Maps inputs (n, ...) to outputs (n, ...) float32: arrays, or tuples or dicts of arrays as the network takes and returns them."""
Evaluate = Callable[[Run], float | np.ndarray]


class Found(NamedTuple):
    """What `evaluate` returned: with the dense engine, with torch, and with the engine that ships."""

    dense: Scores | None
    torch: Scores
    engine: Scores


def evaluate_torch(evaluate: Evaluate, hand: InHand) -> Scores:
    """Call `evaluate` on the caller's network, before anything is built.

    Raises:
        ConfigError: It raises something, or returns no score.
    """
    return scores_of(evaluate, run_of_network(hand), "torch network")


def evaluate_engines(evaluate: Evaluate, by_torch: Scores, shipped: Built, dense: Built | None, target: Target, specs: Sequence[TensorSpec]) -> Found:
    """Call `evaluate` on the engines.

    Raises:
        ConfigError: It raises something, or returns no score, or scores of another kind than with torch.
    """

    def score(built: Built, who: str) -> Scores:
        run = run_of_engine(built.engine, target.at(built.engine.precision), shipped.hand, specs)
        found = scores_of(evaluate, run, who)
        require_alike(by_torch, found)
        return found

    return Found(None if dense is None else score(dense, "dense engine"), by_torch, score(shipped, "shipped engine"))


def run_of_network(hand: InHand) -> Run:
    """Return what runs the caller's network with torch in evaluation, on the device that it is on."""
    network = pack_inputs(copy_network(hand.given).eval(), hand.inputs)
    device = next(network.parameters()).device

    @torch.no_grad()
    def run(inputs: Any) -> Any:
        return as_arrays(network(torch.from_numpy(_checked(inputs, hand.inputs)).to(device)), hand.form)

    return run


def run_of_engine(engine: Engine, target: Target, hand: InHand, specs: Sequence[TensorSpec]) -> Run:
    """Return what runs an engine on its device, which is loaded once."""
    opened = device_of(target).open(engine.for_target(target))

    def run(inputs: Any) -> Any:
        return hand.form.arranged(list(separate(opened(_checked(inputs, hand.inputs)), specs).values()))

    return run


def scores_of(evaluate: Evaluate, run: Run, who: str) -> Scores:
    """Call `evaluate`.

    Raises:
        ConfigError: It raises something, or returns no score.
    """
    allowed, fix = "a function of one argument, which maps inputs (n, ...) to outputs", "mend the line named above; evaluate runs on arrays, not on tensors"
    with user_code(f"evaluate raised an error with the {who}", allowed=allowed, fix=fix):
        found = evaluate(run)
    scores = Scores.of(found)
    say(f"evaluate: {scores.mean:.6g} with the {who}")
    return scores


def _checked(inputs: Any, form: Form) -> np.ndarray:
    """Return inputs as an engine takes them: several are flattened and joined."""
    values = form.values_in(inputs)
    exact = values is not None and (form.kind == "tensor" or len(inputs) == len(values))
    arrays = [each.detach().cpu().numpy() if isinstance(each, torch.Tensor) else np.asarray(each) for each in (values if values is not None and exact else ())]
    fits = all(each.dtype.kind == "f" and each.shape[1:] == shape and len(each) for each, shape in zip(arrays, form.shapes, strict=False))
    if not arrays or not fits or len({len(each) for each in arrays}) > 1:
        given = ", ".join(f"{each.shape} {each.dtype}" for each in arrays) or type(inputs).__name__
        shapes = [f"(n, {', '.join(map(str, shape))})" for shape in form.shapes]
        several = f"a {form.kind} of floating-point inputs {', '.join(f'{key}: {shape}' for key, shape in zip(form.keys, shapes, strict=True))}"
        allowed = f"floating-point inputs {shapes[0]}" if form.kind == "tensor" else several
        fix = "give it inputs as the network gets them: prepared, and in batches"
        raise ConfigError(describe("evaluate runs the network on something else", given=given, allowed=allowed, fix=fix))
    return np.ascontiguousarray(joined([np.asarray(each, dtype=np.float32) for each in arrays]))
