"""A Prefect server on this machine alone: its settings, its start, its end.

Everything that it writes lies in ``<store>/.prefect``. Nothing here imports Prefect.
"""

import ctypes
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from profiles.errors import BonsaiError, ConfigError, describe

STORE_VARIABLE = "BONSAI_STORE"
PORT_VARIABLES = ("BONSAI_PORT", "PREFECT_SERVER_API_PORT")
DEFAULT_PORT = 4200
START_SECONDS = 180
STOP_SECONDS = 20
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class ServerNotStarted(BonsaiError):
    """The local Prefect server ended, or did not answer in time."""


def home(store: Path) -> Path:
    """Return the folder of Prefect's database, logs and locks in a store."""
    return store / ".prefect"


def run_lock(store: Path, run_id: str) -> Path:
    """Return the file that a run holds locked while it works."""
    return home(store) / "runs" / run_id


def find_port(environment: Mapping[str, str]) -> int:
    """Return the server's port from the environment, or Prefect's own.

    Raises:
        ConfigError: It is not a port, or `PREFECT_API_URL` names another server.
    """
    name = next((name for name in PORT_VARIABLES if environment.get(name)), None)
    text = environment[name] if name else str(DEFAULT_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigError(describe(f"{name} is no port", given=text, allowed="1 to 65535", fix=f"export {name}=4200, or unset it"))
    port, other = int(text), environment.get("PREFECT_API_URL")
    if other and other.rstrip("/") not in (api_url(port), api_url(port).replace("127.0.0.1", "localhost")):
        raise ConfigError(
            describe(
                "PREFECT_API_URL names another server than the local one, and runs would be sent there",
                given=other,
                allowed=api_url(port),
                fix="unset PREFECT_API_URL, or keep your server: `prefect deploy --all` and a process worker (prefect.yaml)",
            )
        )
    return port


def api_url(port: int) -> str:
    """Return the address of the server's API."""
    return f"http://127.0.0.1:{port}/api"


def settings(store: Path, port: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of the server, of the runner and of every run.

    A page open in the user's browser could start runs through Prefect's defaults: any origin may call, without a token.
    """
    origin = f"http://127.0.0.1:{port}"
    ours = {
        STORE_VARIABLE: str(store),
        "PREFECT_API_URL": api_url(port),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),  # the UI calls this one, whatever --port says
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"{origin},http://localhost:{port}",
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime's own: it writes to ~/.cache as soon as it is imported
        "NO_PROXY": ",".join(filter(None, [environment.get("NO_PROXY") or environment.get("no_proxy"), "127.0.0.1", "localhost"])),
    }
    defaults = {
        "PREFECT_HOME": str(home(store)),
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "bonsai",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",  # these two show the log in `--watch`
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
    }
    return {**{name: environment.get(name, value) for name, value in defaults.items()}, **ours}


def answers(port: int) -> bool:
    """Return whether a Prefect server answers on the port; a proxy of the environment is not asked."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{api_url(port)}/health", timeout=2) as reply:
            return json.loads(reply.read()) is True
    except (OSError, ValueError):
        return False


@contextmanager
def local_server(port: int, log: Path) -> Iterator[subprocess.Popen[bytes] | None]:
    """Start a server, and stop it at the end; yield None at once where one answers already.

    The caller's environment holds `settings`. The server starts while the block runs: `wait_until_ready` tells when it is there.

    Args:
        port: Where it listens, on 127.0.0.1.
        log: Receives its output.
    """
    if answers(port):
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as stream:
        # A session of its own: Ctrl-C must reach the runner alone, which needs the server to report how its runs end.
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent
        )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server answers.

    Raises:
        ServerNotStarted: It ended, or took longer than START_SECONDS; the message holds the end of its log.
    """
    until = time.monotonic() + START_SECONDS
    while not answers(port):
        if server.poll() is not None or time.monotonic() > until:
            problem = f"ended with code {server.returncode}" if server.returncode is not None else f"does not answer after {START_SECONDS} s"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ServerNotStarted(
                describe(
                    f"the local Prefect server {problem}", given=last, allowed=f"a free port {port}", fix=f"read {log}, or choose a port: BONSAI_PORT=4300"
                )
            )
        time.sleep(0.2)


def _end_with_parent() -> None:
    """Ask Linux to end this process with its parent, even one that was killed and could not stop it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
