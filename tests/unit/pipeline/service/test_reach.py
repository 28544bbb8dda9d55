from pathlib import Path

import pytest

from bonsai.pipeline.service.local_server import settings
from bonsai.pipeline.service.reach import CLIENT_SECRET, SERVER_SECRET, is_loopback, origin, secrets
from bonsai.pipeline.service.serve import start_command
from bonsai.profiles.errors import ConfigError

SECRET = "bonsai:a long secret"
BEYOND = ["0.0.0.0", "::", "192.168.1.9", "fe80::1", "build-machine", ""]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_alone_needs_no_secret(host: str) -> None:
    assert is_loopback(host)
    assert secrets(host, {}) == {}


@pytest.mark.parametrize("said", [{}, {SERVER_SECRET: ""}, {SERVER_SECRET: "no-password"}, {SERVER_SECRET: ":password"}, {CLIENT_SECRET: SECRET}])
@pytest.mark.parametrize("host", BEYOND)
def test_others_need_a_user_and_a_password(host: str, said: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"(?s)--host: others can reach the server there.*export PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD"):
        secrets(host, said)


@pytest.mark.parametrize("host", [*BEYOND, "127.0.0.1"])
def test_the_runs_on_this_machine_get_the_servers_secret(host: str) -> None:
    assert secrets(host, {SERVER_SECRET: SECRET}) == {SERVER_SECRET: SECRET, CLIENT_SECRET: SECRET}


def test_two_secrets_are_refused_and_neither_is_shown() -> None:
    with pytest.raises(ConfigError, match="PREFECT_API_AUTH_STRING is not what the server asks for") as caught:
        secrets("0.0.0.0", {SERVER_SECRET: SECRET, CLIENT_SECRET: "bonsai:another"})
    assert SECRET not in str(caught.value)
    assert "another text than" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "called"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("fe80::1", "[fe80::1]"), ("192.168.1.9", "192.168.1.9"), ("localhost", "localhost")]
)
def test_this_machine_calls_the_server_where_it_listens(host: str, called: str) -> None:
    assert origin(host, 4300) == f"http://{called}:4300"
    assert settings(Path("/store"), 4300, {SERVER_SECRET: SECRET}, host)["PREFECT_API_URL"] == f"http://{called}:4300/api"


def test_pages_elsewhere_call_the_machine_they_came_from() -> None:
    assert settings(Path("/store"), 4300, {SERVER_SECRET: SECRET}, "0.0.0.0")["PREFECT_SERVER_UI_API_URL"] == "/api"
    assert "PREFECT_SERVER_UI_API_URL" not in settings(Path("/store"), 4300, {})


def test_the_start_command_names_a_host_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.toml").touch()
    assert start_command(4200, "192.168.1.9").startswith("PREFECT_API_URL=http://192.168.1.9:4200/api prefect deployment run ")
