"""Refuses a profile's points where one engine cannot be run at all of them, or where what is done has no way to look at them."""

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile


def require_open_batch(profile: HardwareProfile, *, dynamic_batch: bool, key: str) -> None:
    """Check that the engine takes the batch of every point.

    Args:
        profile: Profile with the points.
        dynamic_batch: Whether the engine's file takes any number of images.
        key: The setting that says so, for the message.

    Raises:
        ConfigError: The file takes the target's batch alone, and a point has another.
    """
    others = [point.label for point in profile.points if point.batch not in (None, profile.target.batch)]
    if others and not dynamic_batch:
        problem = f"profile {profile.name}: a file of a fixed batch has no other points"
        given = f"{key} false, and points at {', '.join(others)}"
        fix = f"set {key} to true, or remove these points"
        raise ConfigError(describe(problem, given=given, allowed=f"points at the target's batch of {profile.target.batch}", fix=fix))


def require_no_points(profile: HardwareProfile, *, what: str, why: str) -> None:
    """Refuse points where nothing would look at them.

    Args:
        profile: The profile.
        what: What was asked for, for the message.
        why: Why it has no points.

    Raises:
        ConfigError: The profile has points.
    """
    if profile.points:
        problem = f"profile {profile.name}: {what} does not go with `points`: {why}"
        given = f"points at {', '.join(point.label for point in profile.points)}"
        raise ConfigError(describe(problem, given=given, allowed="a profile without points", fix="set profile.points=[], or name a profile without points"))
