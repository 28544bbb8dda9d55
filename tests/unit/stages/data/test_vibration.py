"""The drawn vibration: states that differ as those of machines do."""

import numpy as np
import pytest

from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION, LoadedSamples
from bonsai.stages.data.vibration import CHANNELS, CLASSES, HIGHEST, OUTER, RATE, load_vibration
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store

SMALL = {"train": 70, "validation": 14, "test": 28}


def recordings(loaded: LoadedSamples) -> np.ndarray:
    return np.stack([loaded.samples[number][0] for number in range(len(loaded.samples))])


def test_every_part_has_as_many_recordings_of_each_state() -> None:
    loaded = load_vibration(**SMALL)
    assert loaded.targets is not None
    assert loaded.parts is not None
    for part, count in ((TRAIN, 10), (VALIDATION, 2), (TEST, 4)):
        assert np.bincount(loaded.targets[loaded.parts == part]).tolist() == [count] * len(CLASSES)


def test_values_stay_within_what_the_converter_takes() -> None:
    found = recordings(load_vibration(**SMALL))
    assert found.shape == (112, CHANNELS, 512)
    assert found.dtype == np.float32
    assert 1 < np.abs(found).max() <= HIGHEST
    assert found.std(2).min() > 0.1


@pytest.mark.parametrize("state", ["outer race", "imbalance"])
def test_a_flaw_of_a_bearing_rings_above_all_harmonics_that_others_have(state: str) -> None:
    loaded = load_vibration(train=700, validation=0, test=0)
    assert loaded.targets is not None
    spectrum = np.abs(np.fft.rfft(recordings(loaded)[:, 0], axis=1)) ** 2
    frequency = np.fft.rfftfreq(512, 1 / RATE)
    high = spectrum[:, frequency > 13 * 45 * 1.1].sum(1) / spectrum.sum(1)
    healthy = np.median(high[loaded.targets == 0])
    found = np.median(high[loaded.targets == CLASSES.index(state)])
    assert OUTER % 1 != 0
    assert (found > healthy) == (state == "outer race")


def test_what_is_prepared_has_channels_samples_and_states(store: Store) -> None:
    made = store.run(prepare, data=DataConfig(name="vibration", options=SMALL), content="")
    assert made.image_shape == (CHANNELS, 512)
    assert made.classes == CLASSES
