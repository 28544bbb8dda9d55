"""Earlier packages that new engines are compared with: which is for which profile."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.delivery.release import Release, read_release, require_comparable


def read_releases(folders: Sequence[Path], profiles: Sequence[HardwareProfile]) -> dict[str, Release]:
    """Return the earlier package of each profile that has one.

    One package for one profile is compared whatever its profile was called. Of several, each goes to the profile that it was made for.

    Raises:
        VerificationError: A package is not intact.
        ConfigError: A package is for no profile of this run, or two are for one.
    """
    found = [read_release(folder, profiles) for folder in folders]
    if len(found) == len(profiles) == 1:
        return {profiles[0].name: found[0]}
    names = [profile.name for profile in profiles]
    by_profile: dict[str, Release] = {}
    for release in found:
        name = release.manifest.profile.name
        if name not in names or name in by_profile:
            problem = f"--against {release.name}: {'its profile is none of this run' if name not in names else 'a second package of one profile'}"
            fix = "name one package for each profile, made for that profile"
            raise ConfigError(describe(problem, given=f"profile {name}", allowed=[other for other in names if other not in by_profile], fix=fix))
        by_profile[name] = release
    return by_profile


def require_releases(releases: Iterable[Release], dataset: Dataset) -> None:
    """Check that engines trained on a dataset can be compared with earlier packages, before anything is trained.

    Raises:
        ConfigError: One has another task, or tells other classes, or images of another size.
        DeviceUnavailable: One tells of other test images, and its engine does not run here.
    """
    for release in releases:
        digest = Part(dataset, "test").digest
        require_comparable(release, task=dataset.task, classes=dataset.classes, image_shape=dataset.image_shape, test_digest=digest)
