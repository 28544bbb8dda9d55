"""Names and sentences from outside, made safe for where they are shown: they stay text in Markdown, in a page, and in a file of lines."""

import json
import re

from bonsai.profiles.errors import visible

MARKDOWN = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "\\|*_[]`~$"},
        "<": "&lt;",
        ">": "&gt;",
        "&": "&amp;",
        "\n": "<br>",
    }
)
BREAKS = re.compile("[\x00\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Characters that some program takes for the end of a line."""


def markdown(text: str) -> str:
    """Return a text that Markdown shows as it is: no markup, no link, no HTML, no other direction of writing; a line break stays one."""
    return visible(text, keep="\n").translate(MARKDOWN).replace("://", "&#58;//")


def fenced(text: str) -> str:
    """Return a text as a block of code in Markdown, whatever fences it has itself."""
    longest = max((len(fence) for fence in re.findall("~+", text)), default=0)
    fence = "~" * max(3, longest + 1)
    return f"{fence}\n{visible(text)}\n{fence}"


def one_line(text: str) -> str:
    r"""Return a text without line breaks, which become escapes such as ``\n``; all else stays as it is."""
    return BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def listed_names(names: tuple[str, ...]) -> str:
    """Return names in a sentence, separated by commas; one that has a comma, a quote or an outer blank itself stands in quotes."""
    return ", ".join(json.dumps(name, ensure_ascii=False) if re.search(r'[,"]|^\s|\s$', name) else name for name in names)
