"""Names from outside stay text wherever they are shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tiny_package import make_package, reseal

from bonsai.pipeline.run.publish import lay_out
from bonsai.pipeline.service.run_page import with_figure
from bonsai.stages.texts import fenced, listed_names, markdown, one_line

ODD = (
    "two\nlines\u2028three",
    "a, b",
    "<script>alert(1)</script>",
    "<b>bold</b> **strong** _it_ `code` ~~gone~~ [link](http://x.example) ![p](http://x.example/p.png)",
    "| cell | cell",
    "\u202egnp.exe",
    "http://x.example",
    "](training.svg)",
    "![x](training.svg)",
    "$x^2$ &lt; \\* \x1b[31m",
    "\u06af\u0644\u200c\u0647\u0627",
)


def tokens(text: str) -> set[str]:
    """Return the kinds of what GitHub's Markdown makes of a text, without line breaks and plain texts."""
    found = MarkdownIt("commonmark", {"linkify": False, "html": True}).enable(["table", "strikethrough"]).parse(f"Classes: {text}.")
    inner = {child.type for token in found for child in token.children or []}
    return {token.type for token in found} | inner


@pytest.mark.parametrize("name", ODD)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    plain = {"paragraph_open", "inline", "paragraph_close", "text", "text_special"}
    assert tokens(markdown(name).replace("<br>", "")) <= plain
    assert "\n" not in markdown(name)
    assert not set("\u202e\u2028\x1b") & set(markdown(name))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_markdown_makes_no_markup_of_any_text(name: str) -> None:
    assert tokens(markdown(name).replace("<br>", "")) <= {"paragraph_open", "inline", "paragraph_close", "text", "text_special"}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_one_line_is_one_line_of_any_text(name: str) -> None:
    assert len(one_line(name).splitlines()) <= 1


def test_what_spelling_needs_is_left() -> None:
    assert markdown("\u06af\u0644\u200c\u0647\u0627") == one_line("\u06af\u0644\u200c\u0647\u0627") == "\u06af\u0644\u200c\u0647\u0627"


def test_a_block_of_code_ends_where_its_text_ends() -> None:
    (block,) = MarkdownIt().parse(fenced("a\n~~~\n# b\n~~~~~\nc"))
    assert block.content == "a\n~~~\n# b\n~~~~~\nc\n"


def test_names_with_commas_are_told_apart_in_a_list() -> None:
    assert listed_names(("cat", "a, b", 'say "hi"', "dog ")) == 'cat, "a, b", "say \\"hi\\"", "dog "'


@pytest.mark.parametrize("layout", ["triton", "ort"])
def test_labels_have_a_line_for_each_class_whatever_it_is_called(layout: str, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    package = make_package(tmp_path / "package")
    names = ("two\r\nlines", "a, b\u2028c", "<b>\u202e")
    reseal(package, lambda facts: facts.update(classes=names))
    folder = lay_out(layout, package, tmp_path / layout)
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == [r"two\r\nlines", r"a, b\u2028c", "<b>\u202e"]


def test_only_the_figure_of_a_card_becomes_a_picture() -> None:
    card = f"# card\nClasses: {markdown('](training.svg) ![x](training.svg)')}.\n\n![EPI until the trigger](training.svg)\n"
    shown = with_figure(card, b"<svg/>")
    assert shown.count("data:image/svg+xml") == 1
    assert "![EPI until the trigger](data:image/svg+xml;base64,PHN2Zy8+)\n" in shown
