"""Times, hits and their intervals, and the verdicts that follow from them."""
