"""Vibration of a rotating machine, drawn: three accelerometers, seven states, other speed, load and noise in every recording.

A flaw in a bearing gives blows, 3.58 or 5.42 in a revolution, and each blow makes the housing ring. The other faults change the harmonics of the speed.
To tell them apart, a network has to find the speed, which drifts within a recording. Every recording depends on the
seed and its own number alone.
"""

import numpy as np

from bonsai.stages.data.arrays import ArraySamples
from bonsai.stages.data.how import make_preprocess
from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION, LoadedSamples

CLASSES = ("healthy", "imbalance", "misalignment", "looseness", "outer race", "inner race", "gear tooth")
RATE = 2048
"""Samples a second."""
CHANNELS = 3
"""Accelerometers: two across the shaft, at right angles, and one along it."""
HIGHEST = 8.0
"""Values beyond it are clipped, as by a converter. A recording's root mean square is about 1 before its gain."""
SPEED = (18.0, 45.0)
"""Revolutions a second."""
OUTER, INNER, TEETH = 3.58, 5.42, 13
"""Blows a revolution when balls pass a flaw of the outer or the inner race, and teeth of the wheel."""

Signal = np.ndarray
"""(channels, length) or (length,) float64."""


def load_vibration(*, train: int = 2800, validation: int = 700, test: int = 1400, length: int = 512, seed: int = 0) -> LoadedSamples:
    """Draw the set: recordings of three channels, as many of each state as of any other.

    Args:
        train: Training recordings.
        validation: Validation recordings.
        test: Test recordings.
        length: Samples of a recording; there are 2,048 a second.
        seed: Seed of all random numbers.
    """
    recordings, labels, parts = [], [], []
    for part, count in ((TRAIN, train), (VALIDATION, validation), (TEST, test)):
        for index in range(count):
            rng = np.random.default_rng((seed, part, index))
            label = index % len(CLASSES)
            recordings.append(_draw(rng, CLASSES[label], length))
            labels.append(label)
            parts.append(part)
    preprocess = make_preprocess((length,), CHANNELS, scale=(-HIGHEST, HIGHEST))
    samples = ArraySamples(np.stack(recordings), np.array(labels), preprocess)
    return LoadedSamples(samples, np.array(labels), CLASSES, "drawn by a program: free to use", preprocess, np.array(parts))


def _draw(rng: np.random.Generator, state: str, length: int) -> np.ndarray:
    """Return a recording (channels, length) float32."""
    turns = _turns(rng, length)
    fault = rng.uniform(0.35, 1.1)
    signal = _background(rng, turns)
    if state == "imbalance":
        signal += 1.8 * fault * _across(rng, turns, 1)
    elif state == "misalignment":
        signal += fault * (0.7 * _across(rng, turns, 1) + 1.3 * _across(rng, turns, 2)) + np.array([[0.0], [0.0], [fault]]) * _wave(rng, turns, 2)
    elif state == "looseness":
        signal += fault * sum(rng.uniform(0.3, 0.7) * _across(rng, turns, order) for order in (0.5, 1.5, 2, 2.5, 3, 4))
    elif state == "outer race":
        signal += fault * _ringing(rng, turns, OUTER, np.ones_like(turns))
    elif state == "inner race":
        signal += fault * _ringing(rng, turns, INNER, 1 + 0.9 * _wave(rng, turns, 1))
    elif state == "gear tooth":
        signal += 0.9 * fault * _gains(rng) * (1 + 0.9 * _wave(rng, turns, 1)) * _wave(rng, turns, TEETH)
    signal += rng.uniform(0.2, 0.6) * rng.normal(size=signal.shape)
    return np.clip(rng.uniform(0.6, 1.4) * signal, -HIGHEST, HIGHEST).astype(np.float32)


def _turns(rng: np.random.Generator, length: int) -> Signal:
    """Return the angle of the shaft in revolutions: it starts anywhere, and its speed drifts by up to a tenth."""
    speed = rng.uniform(*SPEED) * (1 + rng.uniform(-0.1, 0.1) * np.linspace(0, 1, length))
    return np.asarray(rng.uniform() + np.cumsum(speed) / RATE)


def _background(rng: np.random.Generator, turns: Signal) -> Signal:
    """Return what every machine has: a little imbalance and misalignment, the meshing of teeth, and hum of the mains."""
    hum = 0.3 * rng.uniform() * np.sin(2 * np.pi * (50 * np.arange(len(turns)) / RATE + rng.uniform()))
    harmonics = rng.uniform(0.1, 0.6) * _across(rng, turns, 1) + rng.uniform(0.05, 0.3) * _across(rng, turns, 2)
    return np.asarray(harmonics + rng.uniform(0.1, 0.5) * _gains(rng) * _wave(rng, turns, TEETH) + hum)


def _wave(rng: np.random.Generator, turns: Signal, order: float) -> Signal:
    """Return a sine of `order` periods a revolution."""
    return np.asarray(np.sin(2 * np.pi * (order * turns + rng.uniform())))


def _across(rng: np.random.Generator, turns: Signal, order: float) -> Signal:
    """Return a force that turns with the shaft: a quarter of a period apart in the two channels across it, and a little along it."""
    phase = order * turns + rng.uniform()
    return np.stack([np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase), 0.2 * np.sin(2 * np.pi * phase + 1)])


def _gains(rng: np.random.Generator) -> Signal:
    """Return how strongly each accelerometer, (channels, 1), hears what comes from one place of the housing."""
    return rng.uniform(0.4, 1.0, (CHANNELS, 1))


def _ringing(rng: np.random.Generator, turns: Signal, order: float, strength: Signal) -> Signal:
    """Return a housing that rings after every blow: `order` blows a revolution, each as strong as `strength` (length,) is then, none quite on time."""
    phase = order * turns + rng.uniform() + 0.05 * np.cumsum(rng.normal(size=len(turns))) / np.sqrt(len(turns))
    blows = np.diff(np.floor(phase), prepend=np.floor(phase[0])) * strength * rng.uniform(0.7, 1.3, len(turns))
    seconds = np.arange(len(turns)) / RATE
    ring = np.exp(-seconds * rng.uniform(150, 300)) * np.sin(2 * np.pi * rng.uniform(350, 800) * seconds)
    return np.asarray(3 * _gains(rng) * np.convolve(blows, ring)[: len(turns)])
