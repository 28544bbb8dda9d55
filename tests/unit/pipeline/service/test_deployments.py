"""The table of deployments, the two files that repeat it, and what may import Prefect."""

import logging
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bonsai.pipeline.recipes.recipe import list_recipes, load_recipe
from bonsai.pipeline.service.deployments import Deployment, list_deployments
from bonsai.pipeline.service.local_server import find_port, settings
from bonsai.pipeline.service.quiet import Quiet
from bonsai.pipeline.service.serve import start_command
from bonsai.profiles.errors import ConfigError

ROOT = Path(__file__).parents[4]


def run_python(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", code], env=environment, cwd=home, capture_output=True, text=True, check=False)


def test_every_shipped_recipe_has_a_deployment() -> None:
    assert [row.name for row in list_deployments() if row.flow == "compress"] == list_recipes()


@pytest.mark.parametrize("row", [row for row in list_deployments() if row.flow == "compress"], ids=lambda row: row.name)
def test_a_deployment_starts_its_recipe_on_the_recipes_own_profile(row: Deployment) -> None:
    recipe = load_recipe(row.parameters["recipe"])
    assert row.parameters == {"recipe": row.name, "profile": None, "budget": None, "overrides": {}, "layout": "none"}
    assert row.description.startswith(recipe.description)
    assert row.tags == ("bonsai", recipe.model.name, recipe.data.name)


def test_every_shipped_recipe_can_be_compared_on_several_profiles() -> None:
    rows = [row for row in list_deployments() if row.flow == "compare"]
    assert [row.name for row in rows] == list_recipes()
    assert all(len(row.parameters["profiles"]) > 1 for row in rows)


def test_prefect_yaml_agrees_with_the_table() -> None:
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    keys = ("name", "entrypoint", "description", "tags", "parameters")
    expected = [{**row.model_dump(mode="json"), "entrypoint": row.entrypoint} for row in list_deployments()]
    assert [{key: entry[key] for key in keys} for entry in written] == [{key: entry[key] for key in keys} for entry in expected]
    assert all(entry["enforce_parameter_schema"] for entry in written)


def test_prefect_toml_agrees_with_what_serve_sets() -> None:
    served = settings(Path("artifacts"), 4200, {})
    written = dict(flatten(tomllib.loads((ROOT / "prefect.toml").read_text())))
    assert written == {name: served[name] for name in written}
    assert set(served) - set(written) == {"BONSAI_STORE", "DO_NOT_TRACK", "NO_PROXY", "ORT_DISABLE_TELEMETRY"}


def flatten(table: dict[str, Any], prefix: str = "PREFECT") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{prefix}_{key.upper()}"
        if isinstance(value, dict):
            yield from flatten(value, name)
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)


def test_nothing_that_a_plain_run_imports_imports_prefect(tmp_path: Path) -> None:
    code = (
        "import sys; import bonsai.pipeline.cli.main, bonsai.pipeline.tables, bonsai.pipeline.compare.comparing, bonsai.pipeline.run.plan; "
        "from bonsai.pipeline.service import deployments, form, package_server, quiet, serve; print('prefect' in sys.modules)"
    )
    assert run_python(code, tmp_path).stdout == "False\n"


def test_the_installed_fastapi_lets_prefects_server_start(tmp_path: Path) -> None:
    done = run_python("import prefect.server.api.server", tmp_path)
    assert done.returncode == 0, done.stderr


def test_only_the_server_of_this_machine_is_addressed_and_pages_of_others_cannot_call_it() -> None:
    served = settings(Path("/store"), 4300, {"PREFECT_SERVER_API_HOST": "0.0.0.0", "PREFECT_SERVER_ANALYTICS_ENABLED": "true"})
    assert served["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert served["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"
    assert served["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4300,http://localhost:4300"
    assert served["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert served["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


@pytest.mark.parametrize(("name", "place"), [("PREFECT_HOME", "/store/.prefect"), ("PREFECT_SERVER_UI_STATIC_DIRECTORY", "/store/.prefect/ui")])
def test_what_the_server_writes_lies_in_the_store_unless_the_user_says_otherwise(name: str, place: str) -> None:
    assert settings(Path("/store"), 4200, {})[name] == place
    assert settings(Path("/store"), 4200, {name: "/elsewhere"})[name] == "/elsewhere"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine() -> None:
    assert settings(Path("/store"), 4200, {"no_proxy": "intranet"})["NO_PROXY"] == "intranet,127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({}, 4200),
        ({"BONSAI_PORT": "4300", "PREFECT_SERVER_API_PORT": "4400"}, 4300),
        ({"PREFECT_SERVER_API_PORT": "4400"}, 4400),
        ({"PREFECT_API_URL": "http://localhost:4200/api/"}, 4200),
        ({"PREFECT_API_URL": ""}, 4200),
    ],
)
def test_the_port_comes_from_the_environment(environment: dict[str, str], port: int) -> None:
    assert find_port(environment) == port


@pytest.mark.parametrize("text", ["four", "0", "70000"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"BONSAI_PORT is no port\n  given:   {text}\n  allowed: 1 to 65535"):
        find_port({"BONSAI_PORT": text})


def test_another_server_in_the_environment_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"PREFECT_API_URL names another server(.|\n)*http://prefect.example/api(.|\n)*prefect.yaml"):
        find_port({"PREFECT_API_URL": "http://prefect.example/api"})


def test_the_start_command_names_the_server_where_prefect_toml_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "prefect deployment run compress/resnet-edge --watch"
    monkeypatch.chdir(tmp_path)
    assert start_command(4200) == f"PREFECT_API_URL=http://127.0.0.1:4200/api {plain}"
    (tmp_path / "prefect.toml").touch()
    assert start_command(4200) == plain
    assert start_command(4300) == f"PREFECT_API_URL=http://127.0.0.1:4300/api {plain}"


@pytest.mark.parametrize(
    ("name", "message", "shown"),
    [
        ("prefect.runner", "1 scheduled runs skipped (at capacity)", False),
        ("prefect.runner", "Runner 'bonsai' submitted a run", True),
        ("asyncio", "Exception in callback FlowRunSuspendingObserver._handle_polling_task_done(<Task>)", False),
        ("asyncio", "Exception in callback ours()", True),
        ("prefect.FlowRunCancellingObserver", "the websocket failed", True),
    ],
)
def test_prefects_noise_is_left_out_and_nothing_else(name: str, message: str, shown: bool) -> None:
    assert Quiet().filter(logging.LogRecord(name, logging.INFO, __file__, 1, message, (), None)) is shown


def test_a_server_that_was_away_leaves_a_line_without_a_traceback() -> None:
    error = OSError("refused")
    record = logging.LogRecord("prefect.FlowRunCancellingObserver", logging.WARNING, __file__, 1, "the websocket failed", (), (OSError, error, None))
    assert Quiet().filter(record)
    assert record.exc_info is None
