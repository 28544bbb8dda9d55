#!/usr/bin/env bash
# Makes and judges the engines: `bonsai run`, which ends at the first profile that fails, or with COMMAND=compare all of them.
# Exit codes are bonsai's: 3 where a gate is missed. What a CI system reads is in $STORE/ci, whatever the code.
set -euo pipefail
options=()
for profile in $PROFILES; do options+=(--profile "$profile"); done
for setting in ${SETTINGS:-}; do options+=(--set "$setting"); done
exec bonsai "${COMMAND:-run}" "$RECIPE" "${options[@]}" --store "$STORE" --ci
