"""Each stage as a Prefect task of its name, tried again only where that may help, and one at a time where latency is measured.

The store is the only cache: Prefect's own would return one stage's result for another's, or a record whose files are gone.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

import httpx
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.states import Failed

from bonsai.pipeline.service.deployments import TIMING_LIMIT
from bonsai.profiles.errors import BonsaiError
from bonsai.stages.backends.devices import address_among
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step, Store, is_timed
from bonsai.stages.training.progress import say

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
RETRIES, RETRY_SECONDS = 2, 5
LEASE_SECONDS = 60
"""Seconds after which the server gives the slot of a killed run to the next; the server accepts no less."""


def as_tasks(store: Store) -> Step:
    """Return a `step` that runs each stage as a Prefect task of the stage's name.

    A stage that times on a device with an address needs no slot of the server's limit. The device's own lock keeps its timings apart.
    """
    tasks: dict[str, Task[..., Any]] = {}

    def step(stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        def call() -> ArtifactT:
            if is_timed(stage) and address_among(inputs) is None and store.find(stage, **inputs) is None:
                with timing_slot():  # before the store's own locks: a run that holds one of them never waits for this
                    return store.run(stage, **inputs)
            return store.run(stage, **inputs)

        name = stage.__name__
        tasks.setdefault(name, run_stage.with_options(name=name))
        return cast(ArtifactT, tasks[name](call))

    return step


@contextmanager
def timing_slot() -> Iterator[None]:
    """Hold the server's only slot for measuring latency.

    If the limit does not exist or the server does not answer, the work continues without the slot. The timing lock still keeps the runs on
    one machine apart.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(concurrency(TIMING_LIMIT, occupy=1, lease_duration=LEASE_SECONDS, strict=False))
        except ConcurrencySlotAcquisitionError as error:
            say(f"timing goes on without the limit {TIMING_LIMIT}: {error}")
        yield
        try:
            stack.close()
        except httpx.HTTPError as error:  # the work is done; the server ends the lease by itself
            say(f"the limit {TIMING_LIMIT} was not given back, for the Prefect server does not answer ({type(error).__name__})")


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
