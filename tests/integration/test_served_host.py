"""`bonsai serve --host` beyond this machine: only with a secret, which the server then asks everybody for."""

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import ROOT, Served, free_port, serve_command, serving, wait_for

pytestmark = pytest.mark.long  # a Prefect server

SECRET = "bonsai:a long secret"
EVERYWHERE = "0.0.0.0"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("guarded"), "--host", EVERYWHERE, PREFECT_SERVER_API_AUTH_STRING=SECRET) as served:
        yield served


def ask(served: Served, path: str, secret: str | None) -> object:
    """Call the API, with a secret or without; the answer, or the code that it was refused with."""
    headers = {} if secret is None else {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(urllib.request.Request(served.environment["PREFECT_API_URL"] + path, headers=headers), timeout=10) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("secret", [None, "bonsai:", "bonsai:another"])
@pytest.mark.parametrize("path", ["/deployments/name/compress/resnet-edge", "/csrf-token?client=1", "/admin/settings"])
def test_a_client_without_the_secret_gets_401(guarded: Served, path: str, secret: str | None) -> None:
    assert ask(guarded, path, secret) == 401


def test_a_client_with_the_secret_is_answered(guarded: Served) -> None:
    found = ask(guarded, "/deployments/name/compress/resnet-edge", SECRET)
    assert isinstance(found, dict)
    assert found["entrypoint"] == "bonsai.pipeline.service.flows.compress"


def test_a_run_of_a_client_with_the_secret_is_done_and_without_it_is_refused(guarded: Served) -> None:
    command = ("deployment", "run", "compress/resnet-edge", "--watch", "--param", 'overrides={"training.epoch": 1}')
    environment = {name: value for name, value in guarded.environment.items() if not name.endswith("AUTH_STRING")}
    known = Served(guarded.folder, {**environment, "PREFECT_API_AUTH_STRING": SECRET}, guarded.pid).prefect(*command)
    assert "unknown key 'training.epoch'" in known.stdout, known.stdout + known.stderr
    stranger = Served(guarded.folder, environment, guarded.pid).prefect(*command)
    assert stranger.returncode == 1
    assert "401" in stranger.stdout + stranger.stderr


def test_the_page_is_there_and_its_files_lie_in_the_store(guarded: Served) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(guarded.environment["PREFECT_API_URL"].removesuffix("/api") + "/v2/", timeout=10) as reply:
        assert reply.read() == (guarded.store / ".prefect" / "ui" / "v2" / "index.html").read_bytes()


def test_the_runners_folder_lies_in_the_store_since_another_user_may_own_the_one_in_tmp(guarded: Served) -> None:
    wait_for((guarded.store / ".prefect" / "runner").is_dir, seconds=30)


def test_serve_says_who_can_reach_it(guarded: Served) -> None:
    assert f"Others reach it on {EVERYWHERE}, port {guarded.environment['BONSAI_PORT']}, with the secret alone" in guarded.log
    assert SECRET not in guarded.log


def test_a_host_beyond_this_machine_is_refused_without_a_secret(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "BONSAI_PORT": str(free_port())}
    command = [*serve_command(tmp_path), "--host", EVERYWHERE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert f"error: --host: others can reach the server there, and it asks for no password\n  given:   --host {EVERYWHERE}" in done.stderr
    assert "PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD" in done.stderr
    assert list(tmp_path.iterdir()) == []
