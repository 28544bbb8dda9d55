"""An earlier package that a new engine is compared with: read once, checked, and told whether its engine runs here."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from bonsai.profiles.errors import BonsaiError, ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.delivery.contents import PackageManifest, read_intact
from bonsai.stages.delivery.sums import SUMS
from bonsai.stages.delivery.verification import verify_on
from bonsai.stages.errors import DeviceUnavailable, VerificationError
from bonsai.stages.measurement.results import RESULTS, read_results
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.tasks.task import Statistics, Task


class Release(Record):
    """An earlier package, found intact.

    Attributes:
        folder: Its folder, which may change from run to run.
        seal: sha256 of its ``SHA256SUMS``, and so of all of it.
        absence: Why its engine does not run on the device of the new one; empty where it does.
        there: Target at whose address that device is; None for this machine.
    """

    name: str
    folder: Path = Field(exclude=True)
    manifest: PackageManifest = Field(exclude=True)
    seal: str
    absence: str
    there: Target | None = Field(default=None, exclude=True)

    @property
    def engine_sha256(self) -> str:
        """Of the engine."""
        return self.manifest.files[self.manifest.engine.file]

    def stored_results(self, test_digest: str, task: Task) -> Statistics | None:
        """Return what its package keeps of its engine on each test image; None where it tells of other images."""
        if test_digest != self.manifest.test_digest or RESULTS not in self.manifest.files:
            return None
        return read_results(self.folder / RESULTS, task).shipped

    @property
    def engine(self) -> EngineFile:
        """Its engine, as a device takes it."""
        packaged = self.manifest.engine
        target = self.manifest.profile.target.at(packaged.precision)
        return EngineFile(file=self.folder / packaged.file, target=target if self.there is None else target.on_device_of(self.there))


def read_release(folder: Path, profiles: Sequence[HardwareProfile] = ()) -> Release:
    """Read a package, check that it is intact, and try its engine on its golden images in a process of its own.

    Args:
        folder: The package.
        profiles: Those of the run. The engine is tried on the device of the profile that it was made for, or of the only one.

    Raises:
        VerificationError: A file is not as it was sealed, or the folder is no package of this schema.
    """
    manifest = read_intact(folder)
    meant = [profile for profile in profiles if profile.name == manifest.profile.name or len(profiles) == 1]
    there = meant[0].target if meant else None
    try:
        verify_on(device_of(there or manifest.profile.target), folder)
        absence = ""
    except (VerificationError, DeviceUnavailable) as error:
        absence = _in_one_line(error)
    return Release(name=manifest.name, folder=folder.resolve(), manifest=manifest, seal=sha256_file(folder / SUMS), absence=absence, there=there)


def require_comparable(release: Release, *, task: str, classes: tuple[str, ...], image_shape: tuple[int, ...], test_digest: str) -> None:
    """Check that a release and a new engine can be compared image by image, before anything is trained.

    Args:
        release: The earlier package.
        task: Name of the new engine's.
        classes: Classes of the new data.
        image_shape: (channels, height, width) of the new images.
        test_digest: sha256 of the new test part.

    Raises:
        ConfigError: It has another task, other classes, or images of another kind.
        DeviceUnavailable: Its stored results are of other test images, and its engine does not run here.
    """
    problem = f"--against {release.name}: it cannot be compared with the new engine"
    if release.manifest.task != task:
        raise ConfigError(describe(f"{problem}: its task is another", given=release.manifest.task, allowed=task, fix="name a package of the same task"))
    if release.manifest.classes != classes:
        given = f"{len(release.manifest.classes)} classes, {', '.join(release.manifest.classes[:6])}"
        allowed = f"the {len(classes)} classes of the recipe's data, {', '.join(classes[:6])}"
        raise ConfigError(describe(f"{problem}: its classes are others", given=given, allowed=allowed, fix="name a package of the same classes"))
    if release.stored_results(test_digest, task_named(task)) is not None:
        return
    if release.manifest.engine.image_shape != image_shape:
        given, allowed = (f"images of {'x'.join(map(str, shape))}" for shape in (release.manifest.engine.image_shape, image_shape))
        raise ConfigError(
            describe(f"{problem}: its test images are others, and its engine takes another size", given=given, allowed=allowed, fix="name another package")
        )
    if release.absence:
        raise DeviceUnavailable(
            describe(
                f"{problem}: its stored results are of other test images, and its engine does not run here",
                given=release.absence,
                allowed="the same test images, or the device and the runtime of that engine",
                fix="run this on that device, keep the test images, or leave --against out",
            )
        )


def _in_one_line(error: BonsaiError) -> str:
    problem, *details = str(error).splitlines()
    given = next((line.partition(":")[2].strip() for line in details if line.strip().startswith("given:")), "")
    return f"{problem} ({given})" if given else problem
