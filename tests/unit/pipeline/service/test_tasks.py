"""What of `bonsai.pipeline.service.tasks` and of what a run shows needs no server; `tests/integration/test_deployment.py` runs the flow."""

import logging
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.stages.errors import BuildError


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))  # Prefect makes its folder when it is first imported
    import bonsai.pipeline.service.tasks

    return bonsai.pipeline.service.tasks


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError("disk"), True),
        (ConnectionResetError("child"), True),
        (subprocess.CalledProcessError(-9, "child"), True),
        (subprocess.CalledProcessError(1, "child"), False),
        (ValueError("recipe"), False),
        (ConfigError("recipe"), False),
        (BuildError("graph"), False),
    ],
    ids=repr,
)
def test_only_a_failure_of_the_machine_is_tried_again(tasks: ModuleType, error: Exception, again: bool) -> None:
    from prefect.states import Failed

    assert tasks.is_passing(tasks.run_stage, None, Failed(data=error)) is again


def test_tasks_keep_nothing_in_prefects_cache(tasks: ModuleType) -> None:
    assert tasks.run_stage.cache_policy.compute_key(None, {}, {}) is None
    assert tasks.run_stage.persist_result is False


def test_a_log_line_is_escaped_where_it_looks_like_markup(tasks: ModuleType) -> None:
    from bonsai.pipeline.service.run_log import RunLog

    record = logging.LogRecord("bonsai", logging.INFO, __file__, 1, "node %s of [1, 2]", ("[/conv1/Conv]",), None)
    assert RunLog().filter(record)
    assert record.getMessage() == r"node \[/conv1/Conv] of [1, 2]"


def test_the_traceback_of_a_state_that_the_flow_returned_is_dropped(tasks: ModuleType) -> None:
    from prefect.exceptions import FailedRun

    from bonsai.pipeline.service.run_log import RunLog

    error = FailedRun("a gate is missed")
    record = logging.LogRecord("prefect.flow_runs", logging.ERROR, __file__, 1, "unexpected", (), (FailedRun, error, None))
    assert not RunLog().filter(record)


def test_a_card_carries_its_figure_where_there_is_no_folder_to_find_it_in(tasks: ModuleType) -> None:
    from bonsai.pipeline.service.run_page import with_figure

    assert with_figure("# card\n![curve](training.svg)\n", b"<svg/>") == "# card\n![curve](data:image/svg+xml;base64,PHN2Zy8+)\n"
