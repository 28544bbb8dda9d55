"""TensorBoard: event files in a folder."""

from collections.abc import Mapping
from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe


class TensorBoardTracker:
    """Writes event files; those of a run that was stopped and goes on stand beside each other and are read as one."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra

        self._writer = SummaryWriter(str(folder))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take named figures of an optimizer step."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a run may be killed

    def close(self, *, finished: bool) -> None:
        """Write what is left."""
        self._writer.close()


def open_tensorboard(where: str, run: str) -> TensorBoardTracker:
    """Open ``where/run``.

    Raises:
        ConfigError: No folder is given, or it cannot be written to, or TensorBoard is not installed.
    """
    allowed = "tensorboard:DIR"
    if not where:
        raise ConfigError(describe("tracker tensorboard needs a folder", given="none", allowed=allowed, fix="for example tensorboard:runs"))
    try:
        return TensorBoardTracker(Path(where) / run)
    except ImportError as error:
        raise ConfigError(
            describe("tracker tensorboard is not installed", given=error, allowed=allowed, fix="pip install 'bonsai-compress[tensorboard]'")
        ) from error
    except OSError as error:
        raise ConfigError(describe("tracker tensorboard: files cannot be written there", given=error, allowed=allowed, fix="choose another folder")) from error
