"""A Prefect server on this machine, and for this machine alone unless others are asked for a secret: its settings, its start, its end.

Everything that it writes lies in ``<store>/.prefect``. Nothing here imports Prefect.
"""

import ctypes
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bonsai.pipeline.service.reach import LOOPBACK, is_loopback, origin, secrets
from bonsai.profiles.errors import BonsaiError, ConfigError, describe

STORE_VARIABLE = "BONSAI_STORE"
PORT_VARIABLES = ("BONSAI_PORT", "PREFECT_SERVER_API_PORT")
DEFAULT_PORT = 4200
START_SECONDS = 180
STOP_SECONDS = 20
RESTART_SECONDS = 10
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: little is safe between fork and exec


class ServerNotStarted(BonsaiError):
    """The local Prefect server ended, or did not answer in time."""


def home(store: Path) -> Path:
    """Return the folder of Prefect's database, logs and locks in a store."""
    return store / ".prefect"


def run_lock(store: Path, run_id: str) -> Path:
    """Return the file that a run holds locked while it works."""
    return home(store) / "runs" / run_id


def find_port(environment: Mapping[str, str], host: str = LOOPBACK) -> int:
    """Return the server's port from the environment, or Prefect's own.

    Args:
        environment: Environment variables of the user.
        host: Host that the server will listen on.

    Raises:
        ConfigError: It is not a port, or `PREFECT_API_URL` names another server.
    """
    name = next((name for name in PORT_VARIABLES if environment.get(name)), None)
    text = environment[name] if name else str(DEFAULT_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigError(describe(f"{name} is no port", given=text, allowed="1 to 65535", fix=f"export {name}=4200, or unset it"))
    port, other = int(text), environment.get("PREFECT_API_URL")
    if other and other.rstrip("/") not in (api_url(port, host), api_url(port, host).replace(LOOPBACK, "localhost")):
        raise ConfigError(
            describe(
                "PREFECT_API_URL names another server than the local one, and runs would be sent there",
                given=other,
                allowed=api_url(port, host),
                fix="unset PREFECT_API_URL, or keep your server: `prefect deploy --all` and a process worker (prefect.yaml)",
            )
        )
    return port


def api_url(port: int, host: str = LOOPBACK) -> str:
    """Return the address at which this machine calls the server's API."""
    return f"{origin(host, port)}/api"


def settings(store: Path, port: int, environment: Mapping[str, str], host: str = LOOPBACK) -> dict[str, str]:
    """Return the environment variables of the server, of the runner and of every run.

    A page open in the user's browser could start runs through Prefect's defaults: any origin may call, without a token.

    Args:
        store: Folder of the artifacts.
        port: Port of the server.
        environment: Environment variables of the user.
        host: Host that the server listens on.

    Raises:
        ConfigError: Others can reach the host, and there is no secret.
    """
    ours = {
        STORE_VARIABLE: str(store),
        "PREFECT_API_URL": api_url(port, host),
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),  # the UI calls this one, whatever --port says
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"{origin(host, port)},http://localhost:{port}",
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime's own: it writes to ~/.cache as soon as it is imported
        "NO_PROXY": ",".join(filter(None, [environment.get("NO_PROXY") or environment.get("no_proxy"), "127.0.0.1", "localhost"])),
    }
    defaults = {
        "PREFECT_HOME": str(home(store)),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home(store) / "ui"),  # Prefect's own choice is beside its code, where a user who is not root has no UI
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "PREFECT_CLIENT_MAX_RETRIES": "7",  # a run waits four minutes in all for a server that is away, before it gives up telling how it ended
        "PREFECT_LOGGING_EXTRA_LOGGERS": "bonsai",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",  # in memory, a restart holds places for ever
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",  # these two show the log in `--watch`
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
    }
    if not is_loopback(host):
        defaults["PREFECT_SERVER_UI_API_URL"] = environment.get("PREFECT_UI_API_URL") or "/api"  # a page elsewhere calls the machine that it came from
    return {**{name: environment.get(name, value) for name, value in defaults.items()}, **ours, **secrets(host, environment)}


def answers(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a Prefect server answers on the port; a proxy of the environment is not asked."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{api_url(port, host)}/health", timeout=2) as reply:
            return json.loads(reply.read()) is True
    except (OSError, ValueError):
        return False


class LocalServer:
    """The process of a server on this machine.

    Args:
        port: Port of the server.
        log: Receives its output.
        host: Host that the server listens on.
    """

    def __init__(self, port: int, log: Path, host: str = LOOPBACK) -> None:
        self.port, self.log, self.host = port, log, host
        self._changing, self._stopped = threading.Lock(), False
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self._process = self._start()

    def poll(self) -> int | None:
        """Return the code that it ended with, or None while it runs."""
        return self._process.poll()

    def keep_alive(self) -> None:
        """Start it again whenever it ends by itself: runs go on meanwhile, and tell the new one how they ended."""
        threading.Thread(target=self._restart, name="server", daemon=True).start()

    def stop(self) -> None:
        """End it."""
        with self._changing:
            self._stopped = True
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", self.host, "--port", str(self.port)]
        with self.log.open("ab") as stream:
            # A session of its own: Ctrl-C must reach the runner alone, which needs the server to report how its runs end.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent
            )

    def _restart(self) -> None:
        while True:
            code, ended = self._process.wait(), time.monotonic()
            with self._changing:
                if self._stopped:
                    return
                print(f"The local Prefect server ended with code {code} and is started again; runs go on (its log: {self.log}).", flush=True)
                self._process = self._start()
            time.sleep(max(0.0, ended + RESTART_SECONDS - time.monotonic()))  # one that cannot start does not keep the machine busy


@contextmanager
def local_server(port: int, log: Path, host: str = LOOPBACK) -> Iterator[LocalServer | None]:
    """Start a server, and stop it at the end; yield None at once where one answers already.

    The caller's environment holds `settings`. The server starts while the block runs: `wait_until_ready` tells when it is there.

    Args:
        port: Port of the server.
        log: Receives its output.
        host: Host that the server listens on.

    Raises:
        ConfigError: One answers already, and a host beyond this machine was asked for: it may listen elsewhere, and ask for no secret.
    """
    if answers(port, host):
        if not is_loopback(host):
            raise ConfigError(
                describe(
                    f"--host: a Prefect server answers on port {port} already, with settings of its own",
                    given=f"--host {host}",
                    allowed="a free port, or that server without --host",
                    fix="stop that server, or choose a port: BONSAI_PORT=4300",
                )
            )
        yield None
        return
    server = LocalServer(port, log, host)
    try:
        yield server
    finally:
        server.stop()


def wait_until_ready(server: LocalServer) -> None:
    """Wait until the server answers.

    Raises:
        ServerNotStarted: It ended, or took longer than START_SECONDS; the message holds the end of its log.
    """
    until = time.monotonic() + START_SECONDS
    while not answers(server.port, server.host):
        code = server.poll()
        if code is not None or time.monotonic() > until:
            problem = f"ended with code {code}" if code is not None else f"does not answer after {START_SECONDS} s"
            last = "\n".join(server.log.read_text(errors="replace").splitlines()[-15:])
            fix = f"read {server.log}, or choose a port: BONSAI_PORT=4300"
            raise ServerNotStarted(describe(f"the local Prefect server {problem}", given=last, allowed=f"a free port {server.port}", fix=fix))
        time.sleep(0.2)


def _end_with_parent() -> None:
    """Ask Linux to end this process with its parent, even one that was killed and could not stop it."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
