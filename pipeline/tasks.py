"""The flow as Prefect runs it: a task per stage, verdicts as states, cards and tables as artifacts.

The store is the only cache: Prefect's own would return one stage's result for another's, or a record whose files are gone.
"""

import logging
import os
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import Task, flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Failed
from rich.markup import escape

from pipeline import flow as plain
from pipeline.console import package_facts
from pipeline.deployments import FLOW
from pipeline.local_server import STORE_VARIABLE, run_lock
from profiles.errors import BonsaiError
from stages.artifacts import Artifact
from stages.delivery.contents import CARD
from stages.delivery.contents import FOLDER as PACKAGE
from stages.locks import hold
from stages.model_card import HEADER, row_cells
from stages.package import Package
from stages.store import Step, Store
from stages.training.progress import logger

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
RETRIES, RETRY_SECONDS = 2, 5


def run_name() -> str:
    """Return what the run is called in lists: "resnet-edge on local-cpu"."""
    given = flow_run.parameters
    profiles = given["profile"] or "its own profile"
    return f"{Path(given['recipe']).stem} on {profiles if isinstance(profiles, str) else ', '.join(profiles)}"


@flow(name=FLOW, flow_run_name=run_name, validate_parameters=True, persist_result=False)
def compress(
    recipe: str, profile: str | list[str] | None = None, overrides: dict[str, Any] | None = None
) -> list[dict[str, object]] | State[list[dict[str, object]]]:
    """Compress a recipe's network for one or more targets, from training to a measured engine.

    Args:
        recipe: Name of a shipped recipe, or path of a recipe file on the machine that runs.
        profile: One profile or several, by name or path; the recipe's own if empty.
        overrides: Dotted keys laid over the recipe, or with `profile.` in front over every profile: {"quantize.epochs": 2}.

    Returns:
        A dict per package: name, folder, gates, rows. A Failed state where a gate is missed or an error of Bonsai ends the run.
    """
    store = Path(os.environ.get(STORE_VARIABLE, plain.DEFAULT_STORE)).resolve()
    log_progress()
    with hold(run_lock(store, flow_run.id)):
        try:
            packages = plain.compress(recipe, profile, overrides, store=store, step=as_tasks(Store(store)))
        except BonsaiError as error:
            logger.error("%s", error)  # the state's message is shown on one line
            return Failed(message=str(error))
        for package in packages:
            show_package(package)
        missed = [f"{package.name}: {gate.sentence}" for package in packages for gate in package.gates if not gate.passed]
        if missed:
            return Failed(message="; ".join(missed))
        return [package_facts(package, store / "packages") for package in packages]


def as_tasks(store: Store) -> Step:
    """Return a `step` that runs each stage as a Prefect task of the stage's name."""
    tasks: dict[str, Task[..., Any]] = {}

    def step(stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        name = stage.__name__
        tasks.setdefault(name, run_stage.with_options(name=name))
        return cast(ArtifactT, tasks[name](partial(store.run, stage, **inputs)))

    return step


def is_passing(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return whether another try may help: the machine failed, not the recipe."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError) or (isinstance(error, subprocess.CalledProcessError) and error.returncode < 0)


@task(cache_policy=NO_CACHE, persist_result=False, retries=RETRIES, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=is_passing)
def run_stage(call: Callable[[], Artifact]) -> Artifact | State[Artifact]:
    """Run one stage; its inputs are bound in `call`, so that Prefect does not walk through them.

    An error that Bonsai raises on purpose fails the task with its message; any other keeps its traceback.
    """
    try:
        return call()
    except BonsaiError as error:
        return Failed(message=str(error), data=error)


def show_package(package: Package) -> None:
    """Put the model card and the result table on the run's page."""
    key = re.sub(r"[^a-z0-9]+", "-", package.name.lower()).strip("-")
    create_markdown_artifact((package.folder / PACKAGE / CARD).read_text(), key=key, description=f"Model card of {package.name}")
    table = [dict(zip(HEADER, row_cells(row), strict=True)) for row in package.rows]
    create_table_artifact(table, key=f"{key}-rows", description=f"Results of {package.name}")


class RunLog(logging.Filter):
    """Makes log lines fit for people who watch a run.

    `--watch` prints lines as rich markup, which a name such as `[/conv1/Conv]` would end with an error: it is escaped. And
    Prefect logs a traceback of its own after a Failed state that the flow returned on purpose: it is dropped.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the line; return whether it is logged."""
        if record.exc_info and isinstance(record.exc_info[1], FailedRun):
            return False
        record.msg, record.args = escape(record.getMessage()), ()
        return True


def log_progress() -> None:
    """Let Bonsai's progress through to the run's log; Prefect gives the logger its handlers (`logging.extra_loggers`)."""
    logger.setLevel(logging.INFO)
    for name in (logger.name, "prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        filtered = logging.getLogger(name)
        if not any(isinstance(known, RunLog) for known in filtered.filters):
            filtered.addFilter(RunLog())
