"""What finished runs used of the store: the same run again is answered at once where all of it is whole.

``<store>/.finished/<key>.json`` is an aid and no artifact: where it is gone or damaged the run looks its stages up one by one, and writes it anew.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bonsai.profiles.located_yaml import Record
from bonsai.stages.errors import ArtifactDamaged
from bonsai.stages.store.artifact import sha256_text
from bonsai.stages.store.manifest import require_intact
from bonsai.stages.store.whole_files import write_whole

FINISHED = ".finished"


class FinishedRun(Record):
    """A run that has ended.

    Attributes:
        key: Digest of all that entered it; the name of its file.
        packages: ``stage/key`` of every profile's package, in the order of the profiles.
        artifacts: Digest by ``stage/key`` of all that the run found or made.
        warnings: What it told its user to heed.
        seal: sha256 of everything else here.
    """

    key: str
    packages: tuple[str, ...]
    artifacts: dict[str, str]
    warnings: tuple[str, ...]
    seal: str = ""

    @property
    def sealed(self) -> "FinishedRun":
        """This record with its seal."""
        return self.model_copy(update={"seal": sha256_text(self.model_copy(update={"seal": ""}).model_dump_json())})


def remember(root: Path, run: FinishedRun) -> None:
    """Write what a run used of the store in `root`."""
    (root / FINISHED).mkdir(exist_ok=True)
    write_whole(root / FINISHED / f"{run.key}.json", run.sealed.model_dump_json(indent=2))


def recall(root: Path, key: str) -> FinishedRun | None:
    """Return what the run of a key used, or None where no such run has ended here, or its record cannot be read any more."""
    with suppress(OSError, ValueError):
        run = FinishedRun.model_validate_json((root / FINISHED / f"{key}.json").read_bytes())
        if run.key == key and run == run.sealed:
            return run
    return None


def is_whole(root: Path, artifacts: Mapping[str, str]) -> bool:
    """Return whether artifacts, digest by ``stage/key``, are there as they were: every file of them is hashed."""
    try:
        return all(require_intact(root / address).record["digest"] == digest for address, digest in artifacts.items())
    except ArtifactDamaged:
        return False
