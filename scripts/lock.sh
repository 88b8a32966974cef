#!/usr/bin/env bash
# Rewrites the lock files from pyproject.toml.  No registry address is written into them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/trust.sh
compile() {
  .venv/bin/uv pip compile "$@" --quiet --generate-hashes --universal --python-version 3.11 \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header
}
compile pyproject.toml --group build --group demo --group test --group lint -o requirements.lock
compile --group docs -o requirements-dev.lock
compile pyproject.toml --extra postgres --constraint requirements.lock -o requirements-runtime.lock
compile --group packaging -o requirements-packaging.lock
if grep -nE '://|^--' requirements*.lock; then
  echo "A lock file names an address; it must hold only names, versions and hashes." >&2
  exit 1
fi
