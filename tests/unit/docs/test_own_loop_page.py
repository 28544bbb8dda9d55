"""The page on one's own training loop keeps what it promises: eight changed lines."""

import difflib

from pages import ROOT, blocks_of


def test_the_loop_after_differs_from_the_loop_before_in_eight_lines() -> None:
    before, after = (block for block in blocks_of(ROOT / "docs" / "your-own-loop.md") if block.slow and block.language == "python")
    differing = [line for line in difflib.ndiff(before.text.splitlines(), after.text.splitlines()) if line.startswith(("+", "-"))]
    assert len(differing) <= 8, differing
    assert all(f"bonsai.{call}(" in after.text for call in ("Pruner", "quantize", "deploy"))
