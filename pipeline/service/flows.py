"""The flows as Prefect runs them: their parameters make the UI's form, a missed gate or an error of Bonsai makes the run Failed with its message."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from bonsai.pipeline.compare.comparing import compare as compare_targets
from bonsai.pipeline.compare.comparing import comparison_folder, require_all
from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run import flow as plain
from bonsai.pipeline.run.conduct import require_gates
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.publish import LAYOUTS, lay_out
from bonsai.pipeline.service.deployments import COMPARE, COMPRESS
from bonsai.pipeline.service.form import BudgetChoice, LayoutChoice, Overrides, ProfileChoice, ProfilesChoice, RecipeChoice, with_budget
from bonsai.pipeline.service.local_server import run_lock
from bonsai.pipeline.service.place import find_store, settle
from bonsai.pipeline.service.run_log import show_log
from bonsai.pipeline.service.run_page import show_comparison, show_package, show_progress
from bonsai.pipeline.service.tasks import as_tasks
from bonsai.pipeline.tables import package_facts
from bonsai.profiles.errors import BonsaiError
from bonsai.stages.imports.import_policy import VARIABLE as IMPORTS
from bonsai.stages.imports.import_policy import Policy
from bonsai.stages.store.locks import hold
from bonsai.stages.store.store import Store
from bonsai.stages.training.progress import logger

WITHOUT_STRANGERS: Policy = "recipes"


def run_name() -> str:
    """Return what the run is called in lists: "resnet-edge on local-cpu"."""
    given = flow_run.parameters
    recipe, profiles = given["recipe"], given.get("profile") or given.get("profiles")
    if not profiles:
        try:
            profiles = load_recipe(recipe).profile
        except BonsaiError:  # the run itself says what is wrong with the recipe
            return Path(recipe).stem
    return f"{Path(recipe).stem} on {', '.join(Path(name).stem for name in ([profiles] if isinstance(profiles, str) else profiles))}"


@flow(name=COMPRESS, flow_run_name=run_name, validate_parameters=True, persist_result=False)
def compress(
    recipe: RecipeChoice,
    profile: ProfileChoice = None,
    budget: BudgetChoice = None,
    overrides: Overrides = {},  # noqa: B006  # not changed; a None beside it would take the form's editor away
    layout: LayoutChoice = "none",
) -> list[dict[str, object]] | State[list[dict[str, object]]]:
    """Compress a recipe's network for one or more targets, from training to a measured engine.

    Args:
        recipe: What to compress and how. A file lies on the machine that runs.
        profile: The target, or several that share one training; the recipe's own if null. A file lies on the machine that runs.
        budget: Latency that the engine may take, as a fraction of the dense network's on the same device, above 0 and at most 1.
        overrides: Values by dotted key of the recipe, or with `profile.` in front of every profile: {"quantize.epochs": 2}. A mapping replaces the file's.
        layout: Lay each package out too, for Triton or for a minimal build of ONNX Runtime, in a folder of this name beside the packages.

    Returns:
        A dict per package: name, folder, gates, warnings, rows. A Failed state where a gate is missed or undecided, or an error of Bonsai ends the run.
    """
    try:
        with _work(recipe) as store:
            chosen = with_budget(overrides, budget)
            if layout != "none":
                for target in load(recipe, profile, chosen)[1]:
                    LAYOUTS[layout].require(target.target)
            packages = plain.compress(recipe, profile, chosen, store=store.root, step=as_tasks(store))
            folder = store.root / "packages"
            laid_out = [lay_out(layout, folder / package.name, folder / layout) for package in packages] if layout != "none" else []
            for number, package in enumerate(packages):
                show_package(package, [folder / package.name, *laid_out[number : number + 1]])
            require_gates({package.name: package.gates for package in packages})
            facts = [package_facts(package, folder) for package in packages]
    except BonsaiError as error:
        return Failed(message=str(error))
    warnings = [f"{package.name}: {text}" for package in packages for text in package.warnings]
    return Completed(message=f"warning: {'; '.join(warnings)}", data=facts) if warnings else facts


@flow(name=COMPARE, flow_run_name=run_name, validate_parameters=True, persist_result=False)
def compare(
    recipe: RecipeChoice,
    profiles: ProfilesChoice,
    budget: BudgetChoice = None,
    overrides: Overrides = {},  # noqa: B006  # as above
) -> dict[str, object] | State[dict[str, object]]:
    """Compress a recipe's network for several targets that share one training, or in several variants, and set the results side by side.

    Args:
        recipe: What to compress and how. A file lies on the machine that runs.
        profiles: The targets. A file lies on the machine that runs.
        budget: Latency that each engine may take, as a fraction of the dense network's on the same device, above 0 and at most 1.
        overrides: Values by dotted key of the recipe, or with `profile.` in front of every profile: {"quantize.epochs": 2}. A mapping replaces the file's.
            Several values make a variant each: {"prune.criterion": ["snip", "magnitude_l2"]}.

    Returns:
        The comparison. A Failed state where a profile failed, misses a gate or leaves one undecided, or an error of Bonsai ends the run.
    """
    try:
        with _work(recipe) as store:
            comparison = compare_targets(recipe, profiles, with_budget(overrides, budget), store=store.root, step=as_tasks(store))
            show_comparison(comparison, comparison_folder(store.root, comparison.recipe))
            require_all(comparison)
    except BonsaiError as error:
        return Failed(message=str(error))
    facts = comparison.model_dump(mode="json")
    warnings = [f"{outcome.profile}: {text}" for outcome in comparison.outcomes for text in outcome.warnings]
    return Completed(message=f"warning: {'; '.join(warnings)}", data=facts) if warnings else facts


@contextmanager
def _work(recipe: str) -> Iterator[Store]:
    """Yield the store. Meanwhile hold the lock that shows that this process is alive, and show log and progress; log an error of Bonsai.

    The user who started the run may not be the one who started the worker. So by default only recipe files on the worker's disk may name code.
    """
    show_log()
    try:
        os.environ[IMPORTS] = os.environ.get(IMPORTS) or WITHOUT_STRANGERS
        root = find_store(os.environ)
        settle(recipe, os.environ)
        with hold(run_lock(root, str(flow_run.id))), show_progress():
            yield Store(root)
    except BonsaiError as error:
        logger.error("%s", error)  # the state's message is shown on one line
        raise
