"""The pages of the documentation as tests see them: blocks, links, headings, commands.

What stands in HTML comments on the lines before a fenced block says how it is run:

    <!-- not run: REASON -->   never; the reason is what the test's skip says
    <!-- slow -->              by `pytest -m slow` alone; before a page's title: the whole page
    <!-- file: NAME -->        written to that file of the page's folder, for the blocks that follow; Python is not executed then
    <!-- edit: NAME -->        what changes in that YAML file of the page's folder; checked like other YAML, and applied by the test that runs the page

The blocks of a page run in order in one folder, so they share a store: a page is a story.
"""

import functools
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import dropwhile, pairwise
from pathlib import Path

import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "examples/README.md")), *sorted((ROOT / "docs").glob("*.md"))]
MARKDOWN = MarkdownIt("commonmark").enable("table")
COMMENT = re.compile(r"<!-- (not run|slow|file|edit)(?:: *(.*?))? *-->")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    `not_run` is the reason, empty where the comment gives none, and None where there is no such comment.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None
    slow: bool
    file: str | None
    edit: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@functools.cache
def tokens_of(page: Path) -> list[Token]:
    return MARKDOWN.parse(page.read_text(encoding="utf-8"))


@functools.cache
def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    marks: dict[str, str] = {}
    page_is_slow, titled = False, False
    blocks = []
    for token in tokens_of(page):
        comment = COMMENT.fullmatch(token.content.strip()) if token.type == "html_block" else None
        if comment is not None:
            marks[comment[1]] = comment[2] or ""
            page_is_slow |= comment[1] == "slow" and not titled
            continue
        titled |= token.type == "heading_open"
        if token.type == "fence":
            language, line = token.info.strip().split(" ")[0], (token.map or [0])[0] + 1
            slow = page_is_slow or "slow" in marks
            blocks.append(Block(page, line, language, token.content, marks.get("not run"), slow, marks.get("file"), marks.get("edit")))
        marks = {}
    return blocks


def inline(page: Path, kind: str) -> Iterator[Token]:
    """Return the inline tokens of a kind, such as links or code."""
    for token in tokens_of(page):
        yield from (child for child in token.children or [] if child.type == kind)


def code_spans(page: Path) -> list[str]:
    """Return what stands between backticks in a page's text."""
    return [token.content for token in inline(page, "code_inline")]


def links_of(page: Path) -> list[str]:
    """Return the targets of a page's links and images."""
    return [str(token.attrs[attribute]) for kind, attribute in (("link_open", "href"), ("image", "src")) for token in inline(page, kind)]


@functools.cache
def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    seen: dict[str, int] = {}
    anchors = set()
    tokens = tokens_of(page)
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in content.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
            seen[slug] = seen.get(slug, 0) + 1
    return anchors


def commands_in(text: str) -> list[list[str]]:
    """Return the arguments of every `bonsai` command in a shell's text, or in the steps of a CI file."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if not re.search(r"(^|[\s;&|(])bonsai( |$)", line.partition(" #")[0]):
            continue
        lexer = shlex.shlex(re.sub(r"^\s*(- )?(run|script): ", "", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, "#"
        command: list[str] = []
        redirected = False
        for word in [*lexer, ";"]:
            if word[0] in "();<>|&":
                redirected = word[0] in "<>"
                if not redirected:
                    run = list(dropwhile(lambda word: "=" in word, command))  # without the variables that are set for it
                    found += [run[1:]] if run[:1] == ["bonsai"] else []
                    command = []
            elif redirected:
                redirected = False
            else:
                command.append(word)
    return found


def settings_in(arguments: list[str]) -> list[str]:
    """Return the keys that `--set` gives in a command."""
    return [value.partition("=")[0] for option, value in pairwise(arguments) if option == "--set"]


def without_bodies(app: typer.Typer) -> typer.Typer:
    """Return a command line of the same commands and options that does nothing."""
    copy = typer.Typer(no_args_is_help=True, add_completion=False)
    if app.registered_callback and app.registered_callback.callback:
        copy.callback()(_empty(app.registered_callback.callback))
    for command in app.registered_commands:
        if command.callback is not None:
            copy.command(command.name)(_empty(command.callback))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            copy.add_typer(without_bodies(group.typer_instance), name=group.name)
    return copy


def _empty(function: Callable[..., object]) -> Callable[..., None]:
    @functools.wraps(function)
    def nothing(*_: object, **__: object) -> None:
        return None

    return nothing
