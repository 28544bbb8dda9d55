"""MLflow: the tracking store that ``MLFLOW_TRACKING_URI``, or the tracker's own address, names."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bonsai.profiles.errors import ConfigError, describe

if TYPE_CHECKING:
    from mlflow import MlflowClient

ADDRESS, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"


class MlflowTracker:
    """One run of an experiment."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run = client, run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take named figures of an optimizer step."""
        for name, value in metrics.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self, *, finished: bool) -> None:
        """End the run, as one that failed where it was stopped."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")


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
        return MlflowTracker(client, client.create_run(experiment, run_name=run).info.run_id)
    except (MlflowException, ImportError) as error:  # ImportError: what a kind of store needs beside MLflow
        raise ConfigError(describe("tracker mlflow: the store cannot be used", given=error, allowed=allowed, fix="check the address")) from error
