"""Makes a chooser for an invented device, where an operator takes its input channels times its output channels, in microseconds."""

from torch import nn

from bonsai.profiles.latency import Entry, LatencyTable, Line, TableMeta
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.selection.chooser import Chooser
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.steps.characterize import grid_points

STEP = 4
FACTS = {"source": "measured", "device": "d", "runtime": "r", "runtime_version": "1", "precision": "fp32", "batch": 1, "threads": 1, "step": STEP}


def make_chooser(network: nn.Module, image_shape: tuple[int, ...], config: PruneConfig | None = None, share: float = 0.5) -> Chooser:
    """Return a chooser whose budget is a share, 0-1, of the dense network's latency."""
    groups = find_groups(network, image_shape)
    operators = list_operators(network, groups, image_shape)
    entries = [Entry(operator=cls, ci=ci, co=co, p10_us=ci * co, p50_us=ci * co, reps=1, kernels="") for cls, ci, co in grid_points(operators, groups, STEP)]
    table = LatencyTable(TableMeta.model_validate({**FACTS, "clock": "c", "statistic": "s", "date": "d"}), entries)
    latency = NetworkLatency(table, operators, Line())
    options = {group.name: width_options(group, step=STEP, floor=0.1) for group in groups}
    limit_ms = share * latency({group.name: group.width for group in groups})
    return Chooser(groups, operators, options, latency, limit_ms, config or PruneConfig())
