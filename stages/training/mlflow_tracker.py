"""MLflow: the tracking store that ``MLFLOW_TRACKING_URI``, or the tracker's own address, names."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from profiles.errors import ConfigError, describe
from stages.training.progress import say

if TYPE_CHECKING:
    from mlflow import MlflowClient

ADDRESS, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"


class MlflowTracker:
    """One run of an experiment. A store that fails later is reported once and left alone."""

    def __init__(self, client: "MlflowClient", run_id: str, failure: type[Exception]) -> None:
        self._client, self._run, self._failure = client, run_id, failure
        self._works = True

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take named figures of an optimizer step."""
        for name, value in metrics.items():
            self._try(self._client.log_metric, name, value, step=step)

    def close(self) -> None:
        """End the run."""
        self._try(self._client.set_terminated)

    def _try(self, call: Any, *arguments: Any, **options: Any) -> None:
        try:
            if self._works:
                call(self._run, *arguments, **options)
        except self._failure as error:
            self._works = False
            say(f"MLflow no longer takes figures, and is given none: {error}")


def open_mlflow(where: str, run: str) -> MlflowTracker:
    """Begin a run of the experiment that ``MLFLOW_EXPERIMENT_NAME`` names, by default ``bonsai``.

    Raises:
        ConfigError: No store is configured, or it does not answer, or MLflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported; it would report home
    address, allowed = where or os.environ.get(ADDRESS, ""), f"mlflow:URI, or mlflow with {ADDRESS} set"
    if not address:
        raise ConfigError(describe("tracker mlflow has no store", given="no address", allowed=allowed, fix="for example mlflow:sqlite:///mlflow.db"))
    try:
        from mlflow import MlflowClient  # an extra
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise ConfigError(describe("tracker mlflow is not installed", given=error, allowed=allowed, fix="pip install 'bonsai-compress[mlflow]'")) from error
    try:
        client, name = MlflowClient(address), os.environ.get(EXPERIMENT, "bonsai")
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        return MlflowTracker(client, client.create_run(experiment, run_name=run).info.run_id, MlflowException)
    except (MlflowException, ImportError) as error:  # ImportError: what a kind of store needs beside MLflow
        raise ConfigError(describe("tracker mlflow: the store cannot be used", given=error, allowed=allowed, fix="check the address")) from error
