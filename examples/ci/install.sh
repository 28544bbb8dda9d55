#!/usr/bin/env bash
# Installs what BONSAI names to pip: this checkout by default, or a wheel, a path, a git address, each with the extra train and those of the profiles: PATH[train,rtx].
set -euo pipefail
"${PYTHON:-python}" -m pip install --quiet "${BONSAI:-.[train]}"
