"""Reports over finished packages: one file of HTML that works offline, and the same as Markdown."""
