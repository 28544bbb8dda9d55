"""Writes the package of a network in hand: engine, ONNX file, golden samples, manifest and card, put in place by one rename."""

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bonsai.pipeline.loop.exporting import Specs
from bonsai.pipeline.run.publish import replace_folder
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.runtimes import runtime_of
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.compatibility import compatibility_of
from bonsai.stages.delivery.contents import CARD, seal
from bonsai.stages.delivery.deployed import Closeness, DeployedManifest, NetworkFacts, ScoredRow
from bonsai.stages.delivery.golden import GOLDEN_IMAGES, write_golden
from bonsai.stages.delivery.packed_facts import PLAIN, PackagedEngine, PackagedInput, PackagedOutput
from bonsai.stages.graph.names import MODEL
from bonsai.stages.measurement.measurements import Gate
from bonsai.stages.measurement.results import run_for_accuracy
from bonsai.stages.reporting.deployed_card import write_deployed_card
from bonsai.stages.store.lineage import Lineage
from bonsai.stages.store.manifest import MANIFEST, tool_versions
from bonsai.stages.tasks.task import JOINED


class Facts(NamedTuple):
    """Everything that a package says."""

    name: str
    profile: HardwareProfile
    engine: Engine
    specs: Specs
    score: str
    higher_is_better: bool
    rows: tuple[ScoredRow, ...]
    gates: tuple[Gate, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    graph_parity: tuple[Closeness, ...]
    engine_parity: tuple[Closeness, ...]
    network: NetworkFacts
    reference: NetworkFacts | None
    timing: TimingConfig
    lineage: Lineage


def require_name(name: str) -> str:
    """Return the name of a package.

    Raises:
        ConfigError: It cannot be the name of a folder.
    """
    if not isinstance(name, str) or re.fullmatch(PLAIN, name) is None:
        allowed = "letters, digits, dots, hyphens and underscores; a letter or digit first"
        raise ConfigError(describe("the package cannot have this name", given=name, allowed=allowed, fix='choose another: name="my-model"'))
    return name


def require_place(folder: Path) -> None:
    """Check, before anything is measured, that a package may be written here: nothing is there, or an older package.

    Raises:
        ConfigError: Something else is there.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        problem, fix = "there is something else in the package's place, which a package would replace", "choose another `name` or `out`"
        raise ConfigError(describe(problem, given=folder, allowed="an empty place, or an older package", fix=fix))


def write_package(final: Path, facts: Facts, samples: np.ndarray) -> DeployedManifest:
    """Write the package and return its manifest.

    Args:
        final: Its folder, which an older package may be in.
        facts: What it says.
        samples: (n, ...) float32, several inputs joined, of which the first are golden.

    Raises:
        BuildError: The engine gives other outputs the second time, or in a batch.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    manifest = _manifest(facts, len(samples))

    def fill(folder: Path) -> None:
        for file in {MODEL, facts.engine.file}:
            (folder / file).write_bytes((facts.engine.folder / file).read_bytes())
        run = partial(run_for_accuracy, facts.engine, facts.profile.target)
        write_golden(folder, samples[:GOLDEN_IMAGES], run, JOINED.join(spec.name for spec in facts.specs.outputs))
        (folder / CARD).write_text(write_deployed_card(manifest), encoding="utf-8")
        seal(folder, manifest)

    replace_folder(final, fill)
    return manifest


def _manifest(facts: Facts, samples: int) -> DeployedManifest:
    engine, target = facts.engine, facts.profile.target
    return DeployedManifest(
        name=facts.name,
        engine=PackagedEngine(
            file=engine.file,
            graph=MODEL,
            runtime=engine.runtime,
            precision=engine.precision,
            dialect=engine.dialect,
            image_shape=engine.image_shape,
            coverage=engine.coverage,
            run_here=engine.runnable,
        ),
        compatibility=compatibility_of(engine, target, runtime_of(target).package, most_images=facts.profile.most_images),
        golden="engine",
        device=engine.info,
        tools=tool_versions(),
        profile=facts.profile,
        inputs=tuple(PackagedInput(name=spec.name, shape=spec.shape) for spec in facts.specs.inputs),
        outputs=tuple(PackagedOutput(**spec._asdict()) for spec in facts.specs.outputs),
        gates=facts.gates,
        warnings=facts.warnings,
        lineage=facts.lineage.ancestors,
        score=facts.score,
        higher_is_better=facts.higher_is_better,
        rows=facts.rows,
        graph_parity=facts.graph_parity,
        engine_parity=facts.engine_parity,
        samples=samples,
        network=facts.network,
        reference=facts.reference,
        timing=facts.timing,
        notes=facts.notes,
    )
