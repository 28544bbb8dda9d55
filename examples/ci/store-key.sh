#!/usr/bin/env bash
# Says under which key the store is cached: the recipe and the profiles, files by their content, and the settings.
# The key decides only what is found again, never what is right: every artifact of a store is named by what it was made from.
set -euo pipefail
content() { if [ -f "$1" ]; then cat "$1"; else echo "$1"; fi; }
digest=$(for input in "$RECIPE" $PROFILES; do content "$input"; done | cat - <(echo "${SETTINGS:-}") | sha256sum | cut -c1-16)
echo "key=bonsai-${RUNNER_OS:-$(uname -s)}-$digest" >> "$GITHUB_OUTPUT"
