"""Checks a package on the machine it is on: files, machine, runtime, and the engine against its golden results."""

import base64
import json
import math
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bonsai.profiles.errors import SHORT, describe, shorten
from bonsai.stages.backends.device import Device
from bonsai.stages.backends.machine import this_machine
from bonsai.stages.delivery.compatibility import Compatibility, find_absence, list_differences, runtime_difference
from bonsai.stages.delivery.contents import read_any_intact, require_package
from bonsai.stages.delivery.golden import TOLERANCE, read_golden
from bonsai.stages.delivery.packed_facts import PackedFacts
from bonsai.stages.delivery.predict.text import PREDICT, predict_text
from bonsai.stages.delivery.probe import Request
from bonsai.stages.delivery.signing import require_signature
from bonsai.stages.delivery.sums import CHANGED, SIGNATURE, SUMS
from bonsai.stages.errors import DeviceUnavailable, VerificationError
from bonsai.stages.interpreter import run_module
from bonsai.stages.tasks.task import Difference

PROBE = "bonsai.stages.delivery.probe"
PROBE_SECONDS = 300.0
"""Time limit to load an engine and run three images, in seconds. TensorRT for RTX compiles its kernels on the device."""


def verify_package(folder: Path, *, require_run: bool = False, key: Path | None = None) -> list[str]:
    """Check a package on the machine it is on and return what was checked, line by line.

    No byte of the engine is interpreted before its checksum is found right, and it is loaded in a process of its own.

    Args:
        folder: The package.
        require_run: Whether it is an error where the engine cannot be run because its device is not here.
        key: Public key that the package must be signed with; None does not ask who made it.

    Raises:
        VerificationError: The first thing that differs.
        DeviceUnavailable: The engine's runtime is not installed here, or its device is not here and `require_run` is set.
    """
    require_package(folder)
    origin = [require_signature(folder, key)] if key is not None else []
    manifest = read_any_intact(folder)
    if key is None and (folder / SIGNATURE).exists():
        origin = [f"not checked: {SIGNATURE}, which tells who made the package: give the maker's public key, --key FILE"]
    needed, here = manifest.compatibility, this_machine()
    checked = [*origin, f"files: {len(manifest.files) + 1} files have the sha256 of {SUMS} and of the manifest, and there is no other"]
    checked += _told_of_program(folder, manifest)
    absence = find_absence(needed, here)
    if absence is not None:
        if require_run:
            raise DeviceUnavailable(
                describe(
                    "the engine cannot be run here",
                    given=absence,
                    allowed=needed.sentence,
                    fix="run this on the device, or name a profile that has its address: --profile FILE",
                )
            )
        return [*checked, f"built, not run: {absence}", f"not checked: that this machine has {needed.sentence}; the golden outputs"]
    for difference in list_differences(needed, here):
        raise VerificationError(difference)
    version = _installed(needed)
    wrong_version = runtime_difference(needed, version)
    if wrong_version is not None:
        raise VerificationError(wrong_version)
    images, largest = _compare_golden(folder, manifest)
    return [
        *checked,
        f"machine: has {needed.sentence}",
        f"engine: in a process of its own, {needed.runtime} {version} gives the golden outputs of {images} images"
        f" (largest difference {largest:.1e}, at most {TOLERANCE:.0%}; golden by {manifest.golden})",
    ]


def verify_on(device: Device, folder: Path, *, key: Path | None = None) -> list[str]:
    """Check a package on another machine: who made it and its files here, all else there. Arguments and errors as for `verify_package`."""
    require_package(folder)
    origin = [require_signature(folder, key)] if key is not None else []
    read_any_intact(folder)
    return [*origin, *device.verify(folder)]


def _told_of_program(folder: Path, manifest: PackedFacts) -> list[str]:
    """Return whether the program of the package is this Bonsai's, in a sentence; none where a package of an earlier version has no program."""
    if PREDICT not in manifest.files:
        return []
    is_own = (folder / PREDICT).read_text(encoding="utf-8", errors="replace") == predict_text()
    return [
        f"{PREDICT}: {'word for word what this Bonsai writes' if is_own else 'not what this Bonsai writes, but another version, or somebody else; not run'}"
    ]


def _installed(needed: Compatibility) -> str:
    try:
        return metadata.version(needed.runtime)
    except metadata.PackageNotFoundError:
        wanted = f"{needed.runtime}{needed.runtime_versions}"
        raise DeviceUnavailable(
            describe(f"runtime {needed.runtime!r} is not installed", given="no such package", allowed=wanted, fix=f"pip install '{wanted}'")
        ) from None


def _compare_golden(folder: Path, manifest: PackedFacts) -> tuple[int, float]:
    """Return how many golden images were run, and by how much an output differs at most."""
    engine, (images, expected) = manifest.engine.file, read_golden(folder)
    found = _run_probe(Request(package=folder.resolve(), engine=engine, target=manifest.profile.target))
    if found.shape != expected.shape:
        raise VerificationError(describe(f"{engine}: gives another shape of outputs", given=found.shape, allowed=expected.shape, fix=CHANGED))
    largest = Difference.between(found, expected, agreement=math.nan).relative
    if not largest <= TOLERANCE:  # so that NaN is refused too
        raise VerificationError(
            describe(
                f"{engine}: golden outputs differ",
                given=f"{largest:.1%} of the largest output",
                allowed=f"at most {TOLERANCE:.0%} (golden by {manifest.golden})",
                fix="do not use the engine here: let Bonsai build one for this machine and runtime",
            )
        )
    return len(images), largest


def _run_probe(request: Request) -> np.ndarray:
    """Return the outputs that the engine gives in a process of its own.

    Raises:
        VerificationError: It does not load, crashes its process, or takes more than `PROBE_SECONDS`.
    """
    allowed, fix = "an engine that runs on this machine", "build the engine again on this machine with this runtime"
    try:
        process = subprocess.run(
            run_module(PROBE),
            input=request.model_dump_json(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # the same code as here
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = f"{request.engine}: its process did not answer and was ended"
        raise VerificationError(describe(problem, given=f"more than {PROBE_SECONDS:g} s", allowed=allowed, fix=fix)) from None
    if process.returncode != 0:
        last_words = process.stderr.strip().splitlines()[-1:] or ["it left no message"]
        raise VerificationError(describe(f"{request.engine}: {_ending(process.returncode)}", given=last_words[0], allowed=allowed, fix=fix))
    try:
        answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])  # a library may print before it
        if "refused" in answer:
            raise VerificationError(f"{request.engine}: does not load here: {answer['refused']}")
        return np.frombuffer(base64.b64decode(answer["outputs"]), dtype=np.float32).reshape(answer["shape"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        given = shorten(process.stdout[-SHORT:]) or "nothing"
        raise VerificationError(describe(f"{request.engine}: its process gave no outputs", given=given, allowed=allowed, fix=fix)) from error


def _ending(code: int) -> str:
    """Return how a process ended: by a signal where its code is negative."""
    return f"its process was ended by {signal.Signals(-code).name}" if code < 0 else f"its process ended with code {code}"
