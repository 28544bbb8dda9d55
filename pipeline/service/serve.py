"""`bonsai serve`: runs the deployments on this machine, with a local server if none answers.

Prefect is imported inside functions alone: the command line imports this file, and Prefect reads the environment once,
when it is imported.
"""

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bonsai.pipeline.service.deployments import COMPRESS, DEMO, FLOWS, TIMING_LIMIT, list_deployments
from bonsai.pipeline.service.local_server import DEFAULT_PORT, api_url, find_port, home, local_server, run_lock, settings, wait_until_ready
from bonsai.pipeline.service.package_server import URL_VARIABLE, serve_packages
from bonsai.pipeline.service.quiet import quieten
from bonsai.pipeline.service.reach import LOOPBACK, is_loopback, origin
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.store.locks import hold, is_held

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner


def serve(store: Path, host: str = LOOPBACK) -> None:
    """Serve the deployments until SIGINT or SIGTERM, one run at a time.

    Must be called before anything imports Prefect.

    Args:
        store: Folder of the artifacts; Prefect's own files lie in ``.prefect`` there.
        host: Host that the server listens on. Other machines need a secret.

    Raises:
        ConfigError: Another `serve` uses this store, the environment names another server, or others could reach the server without a secret.
        ServerNotStarted: No server answers.
    """
    from httpx import HTTPError

    assert "prefect" not in sys.modules, "Prefect has read its settings already"
    store = store.resolve()
    port, log = find_port(os.environ, host), home(store) / "server.log"
    os.environ.update(settings(store, port, os.environ, host))
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `bonsai serve &` starts with SIGINT ignored
    with _only_one(store), serve_packages(store / "package", port + 1) as packages, local_server(port, log, host) as server:
        os.environ[URL_VARIABLE] = packages
        if server is not None:
            print(f"Waiting for the local Prefect server on {api_url(port, host)} (10-20 s; its log: {log}) ...", flush=True)
        else:
            print(f"Using the Prefect server that answers on {api_url(port, host)} already, with its own settings.", flush=True)
        deployments = prefect_deployments()  # imports torch while the server starts
        if server is not None:
            wait_until_ready(server)
            server.keep_alive()
        ensure_timing_limit()
        quieten()
        announce_lost(crash_lost_runs(store, new_server=server is not None))
        runner = make_runner(deployments, store)
        print(f"Ready. Start a run from another shell:  {start_command(port, host)}")
        if not is_loopback(host):
            print(f"Others reach it on {host}, port {port}, with the secret alone; it travels unencrypted: put TLS in front.", flush=True)
        print(f"Runs, logs and results:  {origin(host, port)}/v2/    (Ctrl-C ends; store: {store})", flush=True)
        with suppress(KeyboardInterrupt):
            asyncio.run(runner.start())
        try:
            announce_lost(crash_lost_runs(store, new_server=server is not None))
        except HTTPError:  # whoever stopped this has stopped the server as well
            print("The Prefect server is gone; the next `bonsai serve` marks the runs that were under way as Crashed.", flush=True)


def make_runner(deployments: Sequence["RunnerDeployment"], store: Path) -> "Runner":
    """Return what runs the deployments, one run at a time, for a store; from here on the server knows them."""
    from prefect.runner import Runner

    class Interruptible(Runner):
        def handle_sigterm(self, *args: Any, **_kwargs: Any) -> None:
            interrupt(*args)  # Prefect's own exits inside asyncio, which ends in tracebacks

    runner = Interruptible(limit=1, pause_on_shutdown=False)
    runner._tmp_dir = home(store) / "runner"  # Prefect's own choice, /tmp/runner_storage, belongs to the first user of a machine who serves: others fail
    for deployment in deployments:
        runner.add_deployment(deployment)
    return runner


def announce_lost(names: Iterable[str]) -> None:
    """Say which runs were marked as Crashed."""
    for name in names:
        print(f"Run {name!r}: its process is gone, now Crashed; started again it continues from the store.", flush=True)


def interrupt(_signum: int, _frame: object) -> None:
    """Take SIGTERM as Ctrl-C, so that the server is stopped too."""
    signal.raise_signal(signal.SIGINT)


@contextmanager
def _only_one(store: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(home(store) / "serve.lock"))
        except BlockingIOError:
            fix = "stop that one, or give this one its own --store and BONSAI_PORT"
            raise ConfigError(describe("another `bonsai serve` uses this store", given=store, allowed="one per store", fix=fix)) from None
        yield


def prefect_deployments() -> list["RunnerDeployment"]:
    """Return the table as Prefect's objects."""
    from prefect.types.entrypoint import EntrypointType

    flows = importlib.import_module(FLOWS)
    deployments = [
        getattr(flows, row.flow).to_deployment(
            name=row.name,
            description=row.description,
            tags=list(row.tags),
            parameters=row.parameters,
            entrypoint_type=EntrypointType.MODULE_PATH,  # by file path Prefect would load a second copy of the module
        )
        for row in list_deployments()
    ]
    return cast(list["RunnerDeployment"], deployments)  # Prefect's signature also covers asynchronous callers


def ensure_timing_limit() -> None:
    """Make the limit that lets one job at a time measure latency, unless it is there: its number is then the user's."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(TIMING_LIMIT)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=TIMING_LIMIT, limit=1))


def start_command(port: int, host: str = LOOPBACK) -> str:
    """Return what to type in another shell; `prefect.toml` in the working directory knows the default port of this machine alone."""
    command = f"prefect deployment run {COMPRESS}/{DEMO} --watch"
    known = (port, host) == (DEFAULT_PORT, LOOPBACK) and Path("prefect.toml").is_file()
    return command if known else f"PREFECT_API_URL={api_url(port, host)} {command}"


def crash_lost_runs(store: Path, *, new_server: bool) -> list[str]:
    """Mark the runs of this store whose process is gone as Crashed and return their names.

    A run that was killed together with its runner would stay Running for ever. A run that was killed before it took its lock is marked
    only if the server is new, because then nobody else can have started a run.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    flows = sorted({row.flow for row in list_deployments()})
    unfinished = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    lost = []
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=flows)), flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=unfinished))
        )
        for run in runs:
            lock, served = run_lock(store, str(run.id)), run.deployment_id is not None and run.work_pool_name is None
            if (lock.exists() or (new_server and served)) and not is_held(lock):
                client.set_flow_run_state(run.id, Crashed(message="The process of this run is gone: the machine or `bonsai serve` was stopped."))
                lost.append(run.name)
    for lock in run_lock(store, "any").parent.glob("*"):
        if not is_held(lock):
            lock.unlink()
    return lost
