#!/usr/bin/env bash
# Installs what BONSAI names to pip: this checkout by default, or a wheel, a path, a git address, each with the extras of the profiles: PATH[rtx].
set -euo pipefail
"${PYTHON:-python}" -m pip install --quiet "${BONSAI:-.}"
