"""Stage `run_alone`: an untrained engine alone in a process, before training: does the device tell what the budget limits?"""

from pathlib import Path

from bonsai.profiles.budget import Budget
from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.measurement.alone_timing import time_alone
from bonsai.stages.measurement.budget_gates import require_told
from bonsai.stages.measurement.measurements import AloneRun
from bonsai.stages.store.store import stage


@stage(version=1, timed=True)
def run_alone(out_dir: Path, engine: Engine, target: Target, budget: Budget) -> AloneRun:
    """Run an engine alone in one process.

    Args:
        out_dir: Receives nothing.
        engine: An untrained engine.
        target: Batch, threads and runtime.
        budget: The limits.

    Raises:
        ConfigError: The device does not tell a figure that the budget limits.
    """
    footprint = time_alone(engine.for_target(target), image_shape=engine.image_shape, timing=TimingConfig(), budget=None)
    require_told(budget, footprint, engine.info.device)
    return AloneRun(folder=out_dir, footprint=footprint)
