"""Errors of the stages, each with the exit code of the command line.

BonsaiError                  (bonsai.profiles.errors)
 ├── ConfigError             2: recipe, profile or option cannot be used
 ├── TrainingDiverged        1: the loss is no longer finite
 ├── MomentsGone             1: a training cannot go on from a checkpoint, which has its weights alone
 ├── TimingFailed            1: a process that times engines ended before its time
 ├── GateMissed              3: the finished engine misses a limit, or it is undecided whether it does
 ├── BuildError              4: export or engine build failed
 ├── DeviceUnavailable       5: the runtime or the device is not here
 └── VerificationError       6: a package is not what its manifest says
     └── ArtifactDamaged     6: an artifact in the store is not what its manifest says
"""

from bonsai.profiles.errors import BonsaiError


class TrainingDiverged(BonsaiError):
    """Training cannot go on: the loss is no longer finite."""


class MomentsGone(BonsaiError):
    """The optimizer's moments of a segment of the trunk were freed, or are damaged. A run trains them again."""


class TimingFailed(BonsaiError):
    """A process that times engines crashed, was ended, or could not open them."""


class GateMissed(BonsaiError):
    """The finished engine misses its budget or a gate, or its verdict is undecided; the package is still written."""

    exit_code = 3


class BuildError(BonsaiError):
    """A graph could not be exported, simplified or built into an engine."""

    exit_code = 4


class DeviceUnavailable(BonsaiError):
    """The runtime is not installed here, or the device is not in this machine."""

    exit_code = 5


class VerificationError(BonsaiError):
    """A package differs from its manifest, or its engine gives other results."""

    exit_code = 6


class ArtifactDamaged(VerificationError):
    """An artifact in the store differs from its manifest, or has none that can be read. A run makes such an artifact again."""
