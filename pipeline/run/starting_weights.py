"""The weights that a run starts with: found before anything is trained, tried on the validation part, and told."""

from pathlib import Path

from bonsai.pipeline.recipes.recipe import Recipe, list_recipes, load_recipe
from bonsai.pipeline.run.cautions import doubt_of
from bonsai.pipeline.run.own_preprocessing import prepare_inputs
from bonsai.pipeline.run.trunk import train_to_end
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.errors import ArtifactDamaged
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.config import RECIPE, WEIGHTS_KEY, GivenWeights, ModelConfig
from bonsai.stages.networks.weights_files import find_weights
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.package import package
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.lineage import made_from
from bonsai.stages.store.manifest import read_either_manifest
from bonsai.stages.store.store import Step, Store, load_artifact
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.training.progress import say

Weights = GivenWeights | Checkpoint | None
"""Weights of a file or a library, another network of the store, or None for random ones."""


def weights_of(model: ModelConfig, store: Path, step: Step) -> Weights:
    """Return the weights that a recipe's model starts with.

    Args:
        model: The network.
        store: Folder of the artifacts, where another recipe's network is looked for.
        step: Runs the stages that train a shipped recipe's network, where no run of that recipe is in the store.

    Raises:
        ConfigError: There is no such file, or no run of such a recipe, and Bonsai ships none of that name.
    """
    if model.weights is None:
        return None
    if model.weights.startswith(RECIPE):
        return _trained_by(model.weights.removeprefix(RECIPE), Store(store), step)
    return find_weights(model.weights)


def check_start(initial: Checkpoint, dataset: Dataset, recipe: Recipe) -> None:
    """Say what given weights are and what they reach before any training; warn where that is chance.

    Raises:
        ConfigError: They are to be the reference, and a part of them is random.
    """
    start = initial.start
    if start is None or not start.given:
        return
    metric = task_named(dataset.task).metric
    reached = start.metrics[f"validation_{metric.name}"]
    say(f"{recipe.model.weights}: {start.sentence}")
    if start.fresh and recipe.training.reference == "given":
        raise ConfigError(
            describe(
                "training.reference `given` needs weights for every layer",
                given=f"{recipe.model.weights}, random in {', '.join(start.fresh)}: the data has {initial.num_classes} classes, the weights are for others",
                allowed="weights that were trained for these classes",
                fix="set training.reference to `trained`, which trains the network to the end before it is compared with",
            )
        )
    if not start.fresh and (doubt := doubt_of(reached, dataset)):
        say(f"warning: {doubt.partition(': ')[0]}, before any training: were the weights trained with another normalisation, or on other classes?")


def _trained_by(name: str, store: Store, step: Step) -> Checkpoint:
    """Return the dense network of a recipe's latest run: its reference, or the last segment of its trunk. A shipped recipe's is trained where there is none.

    Raises:
        ConfigError: The store has no finished run of this recipe, which is none of Bonsai's, or its network was freed.
    """
    runs = list(store.manifests(package))
    names = [run.record["decisions"]["recipe_name"] for run in runs]
    if name not in names and name in list_recipes():
        return _train(load_recipe(name), store, step)
    if name not in names:
        raise ConfigError(
            describe(
                f"{WEIGHTS_KEY}: no recipe of this name was run with this store",
                given=f"{RECIPE}{name}, store {store.root}",
                allowed=sorted({f"{RECIPE}{known}" for known in names}),
                fix=f"run that recipe first, `bonsai run {name}`, or name the store that it was run with: --store",
            )
        )
    latest = max((run for run, known in zip(runs, names, strict=True) if known == name), key=lambda run: run.finished)
    trunk = [store.root / address for address in made_from(latest.inputs) if address.startswith(f"{train_dense.__name__}/")]
    try:
        found = load_artifact(Checkpoint, max(trunk, key=_step_of))
    except ArtifactDamaged as error:
        raise ConfigError(
            describe(
                f"{WEIGHTS_KEY}: the network of this recipe is not in the store any more",
                given=f"{RECIPE}{name}: {str(error).partition(chr(10))[0]}",
                allowed="a run whose artifacts are there; `bonsai gc` frees those that no package needs",
                fix=f"run that recipe again: `bonsai run {name}`",
            )
        ) from error
    say(f"{RECIPE}{name}: {found.folder.parent.name}/{found.key}, {found.reached()}")
    return found


def _train(recipe: Recipe, store: Store, step: Step) -> Checkpoint:
    """Train the dense network of a shipped recipe, for no target; its segments are those that a run of the recipe would train, and reuses."""
    length = f"{recipe.training.epochs} epochs"
    say(f"{RECIPE}{recipe.name}: no package of this recipe is in the store; its dense network is trained first, unless it is there already ({length})")
    dataset = step(prepare, **prepare_inputs(recipe))
    initial = step(initialise, dataset=dataset, model=recipe.model, weights=weights_of(recipe.model, store.root, step))
    trained = train_to_end(recipe, dataset, initial, step)
    say(f"{RECIPE}{recipe.name}: {trained.folder.parent.name}/{trained.key}, {trained.reached()}")
    return trained


def _step_of(segment: Path) -> int:
    """Return the optimizer step at which a segment of a trunk ends.

    Raises:
        ArtifactDamaged: It is not there, or its manifest is not as it was written.
    """
    return int(read_either_manifest(segment).record["step"])
