"""What README.md and docs/ say: every block of code, link, path, command, option and key. How a block is marked: `tests/pages.py`."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from page_story import Story
from pages import PAGES, ROOT, Block, anchors_of, blocks_of, code_spans, commands_in, links_of, settings_in, without_bodies
from pydantic import BaseModel
from typer.testing import CliRunner

from bonsai.pipeline.cli.main import app
from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.profiles.schema import HardwareProfile

LANGUAGES = {"python", "sh", "console", "yaml", "json", "toml", "text", "", "dockerfile", "groovy", "csv"}
"""Those after `toml` are shown and not run; `bash`, `shell`, `yml` and the like are to be written as one of these."""
ROOMS = ("profiles", "stages", "pipeline", "docs", "benchmarks", "tests")
PATH = re.compile(rf"({'|'.join(ROOMS)})/[\w./*-]+")
KEY = re.compile(r"(profile|model|data|training|prune|quantize|export|timing|target|channel_multiple|budget|gates)((\.[a-z_0-9]+)+)(: .*)?")
FILES = (".py", ".yaml", ".onnx", ".svg", ".png", ".csv", ".json", ".md", ".cache", ".sig")
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = without_bodies(app)
GROUPS = [[str(group.name)] for group in app.registered_groups]
"""Names of several commands, which a page may mention without one of them."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def marked(block: Block) -> Any:
    marks = [pytest.mark.skip(reason=block.not_run)] if block.not_run else [pytest.mark.long] if block.slow else []
    return pytest.param(block, id=block.name, marks=marks)


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Story]:
    return {page: Story(page, tmp_path_factory.mktemp(page.stem)) for page in PAGES}


@pytest.mark.parametrize("block", [marked(block) for block in BLOCKS])
def test_a_block_does_what_it_says(block: Block, stories: dict[Path, Story]) -> None:
    stories[block.page].run(block)


@each_page
def test_blocks_have_a_known_language_and_a_reason_not_to_run(page: Path) -> None:
    assert {block.name: block.language for block in blocks_of(page) if block.language not in LANGUAGES} == {}
    assert [block.name for block in blocks_of(page) if block.not_run == ""] == [], "write `<!-- not run: REASON -->`"


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links_of(page):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(link)
    assert broken == []


@each_page
def test_paths_of_the_checkout_exist(page: Path) -> None:
    named = [PATH.fullmatch(word.partition("::")[0]) for span in code_spans(page) for word in span.split()]
    assert [path[0] for path in named if path and not list(ROOT.glob(path[0].rstrip("/")))] == []


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    whole = [(block.name, arguments) for block in blocks_of(page) if block.language in ("sh", "yaml") for arguments in commands_in(block.text)]
    mentioned = [(span, arguments) for span in code_spans(page) if span.startswith("bonsai ") for arguments in commands_in(span) if arguments not in GROUPS]
    faults = {place: fault for place, arguments in whole if (fault := parse(arguments))}
    faults |= {place: fault for place, arguments in mentioned if (fault := parse(arguments)) and "Missing" not in fault and not arguments[0].isupper()}
    assert faults == {}


def parse(arguments: list[str]) -> str | None:
    """Return what the command line has against a command, without running it."""
    outcome = CliRunner(env={"TERM": "dumb", "COLUMNS": "200"}).invoke(COMMANDS, arguments)
    return None if outcome.exit_code == 0 else outcome.output


@each_page
def test_keys_exist(page: Path) -> None:
    keys = [key for block in blocks_of(page) for arguments in commands_in(block.text) if block.language == "sh" for key in settings_in(arguments)]
    keys += [key for span in code_spans(page) for arguments in commands_in(span) for key in settings_in(arguments) if key.islower()]
    keys += [match[1] + match[2] for span in code_spans(page) if (match := KEY.fullmatch(span)) and not match[2].endswith(FILES)]
    assert [key for key in keys if not exists(key)] == []


def exists(key: str) -> bool:
    """Whether a dotted key is one of a recipe or, with or without `profile.`, of a profile."""
    return leads(Recipe, key.split(".")) or leads(HardwareProfile, key.removeprefix("profile.").split("."))


def leads(record: type[BaseModel], path: list[str]) -> bool:
    field = record.model_fields.get(path[0])
    if field is None or not path[1:]:
        return field is not None
    inner = [kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return leads(inner[0], path[1:]) if inner else field.annotation is not None and "dict" in str(field.annotation)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in BLOCKS if block.language == "sh" and block.slow and block.not_run is None])
def test_cheap_commands_of_a_dear_block_run(block: Block, stories: dict[Path, Story], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stories[block.page].folder)
    for arguments in commands_in(block.text):
        if arguments[0] in ("list", "schema") or "--dry-run" in arguments:
            outcome = CliRunner().invoke(app, arguments)
            assert outcome.exit_code == 0, (arguments, outcome.output, outcome.exception)
            assert outcome.stdout.strip()


def test_targets_of_make_that_are_named_exist() -> None:
    known = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {match for block in BLOCKS if block.language == "sh" for match in re.findall(r"^make ([\w./-]+)", block.text, re.MULTILINE)}
    named |= {match for page in PAGES for span in code_spans(page) for match in re.findall(r"^make ([\w./-]+)$", span)}
    assert named - known == set()
    assert "demo" in named


def test_the_file_map_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text().split("\n## Files\n")[1].split("```")[1]
    missing, checked, room = [], 0, Path()
    for line in text.strip().splitlines():
        names, _, about = line.strip().partition("  ")
        if not line.startswith(" "):
            room = ROOT / names
            missing += [] if room.is_dir() else [names]
        if line.startswith(" " * 8):  # goes on with what the line before is about
            names, about = "", line
        paths = [] if not line.startswith(" ") else names.split()
        paths += re.findall(r"[\w.]+\.md", about)
        missing += [name for name in paths if not list(room.glob(name.rstrip("/"))) and not list(room.glob(f"{name}.py"))]
        checked += len(paths)
    assert missing == []
    assert checked > 20


def test_every_page_is_in_the_index() -> None:
    linked = {link.partition("#")[0] for link in links_of(ROOT / "docs" / "README.md")}
    assert {page.name for page in PAGES if page.parent == ROOT / "docs"} - {"README.md"} - linked == set()


def test_the_figures_are_what_the_results_give(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "docs" / "figures.py"))["main"](tmp_path)
    drawn, committed = ({file.name: file.read_text() for file in folder.glob("*.svg")} for folder in (tmp_path, ROOT / "docs" / "images"))
    assert drawn.keys() == committed.keys()
    words = re.compile(r"<text[^>]*>([^<]*)</text>")
    for name, text in committed.items():
        assert words.findall(text) == words.findall(drawn[name]), f"{name}: run `python docs/figures.py`"
        assert len(text) < 100_000


def test_a_command_is_found_with_its_arguments_in_a_shells_text() -> None:
    text = "cd x && bonsai run a --set 'b={c: 1}' > out.txt   # bonsai no\nbonsai list \\\n  models | head\necho bonsai-like\n- run: bonsai verify p; true"
    assert commands_in(text) == [["run", "a", "--set", "b={c: 1}"], ["list", "models"], ["verify", "p"]]


@pytest.mark.parametrize(
    ("command", "fault"),
    [("run resnet-edge --dry-runn", "No such option"), ("lst profiles", "No such command"), ("list profile", "Invalid value"), ("run", "Missing argument")],
)
def test_a_command_that_does_not_exist_is_noticed(command: str, fault: str) -> None:
    assert fault in str(parse(command.split()))


def test_a_key_that_does_not_exist_is_noticed() -> None:
    assert [exists(key) for key in ("prune.epi.latest", "profile.budget.latency", "model.options.width", "prune.floors.conv1")] == [True] * 4
    assert [exists(key) for key in ("prune.epi.lateste", "profile.budget", "prune.floor.x", "epochs")] == [False, True, False, False]


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What becomes INT8, and `prune.value`\n## A (b)\n## A (b)\n## A-b_c\n")
    assert anchors_of(page) == {"what-becomes-int8-and-prunevalue", "a-b", "a-b-1", "a-b_c"}


def test_comments_before_a_block_say_how_it_is_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shell = "```sh\nx\n```\n"
    page.write_text(f"# T\n<!-- file: a.yaml -->\n```yaml\na: 1\n```\n\n<!-- slow -->\n<!-- not run: no server -->\n{shell}<!-- not run -->\n{shell}")
    file, dear, unexplained = blocks_of(page)
    assert (file.file, file.slow, file.not_run) == ("a.yaml", False, None)
    assert (dear.slow, dear.not_run, dear.line) == (True, "no server", 9)
    assert unexplained.not_run == ""
    page.with_name("slow.md").write_text(f"<!-- slow -->\n# T\n{shell}")
    assert blocks_of(page.with_name("slow.md"))[0].slow
