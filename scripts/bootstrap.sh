#!/usr/bin/env bash
# Makes .venv from requirements.lock: every package pinned and checked by hash.  Needs Python >= 3.11
# with venv, and nothing else.  `make` calls it only when pyproject.toml or the lock has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

choose_python() {
  local name
  for name in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if usable "$name"; then echo "$name"; return; fi
  done
  echo "exeat needs Python 3.11 or newer, and none of these is: ${PYTHON:-python3.13 python3.12 python3.11 python3}." >&2
  echo "Install one, or name it: make PYTHON=/path/to/python3.12" >&2
  return 1
}

if ! { [ -x "$VENV/bin/python" ] && usable "$VENV/bin/python"; }; then
  python=$(choose_python)
  echo "Creating $VENV with $("$python" --version)"
  if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    echo "This Python cannot make virtual environments: its venv module is missing." >&2
    echo "On Debian or Ubuntu: apt-get install python3-venv. Then run make again." >&2
    exit 1
  fi
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
fi

wanted=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)
if [ "$("$VENV/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$wanted" ]; then
  awk '/^[^ ]/ {mine = /^uv==/} mine' requirements.lock > "$VENV/uv.txt"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$VENV/uv.txt"
fi

. scripts/trust.sh
echo "Installing $(grep -c '^[a-zA-Z0-9].*==' requirements.lock) locked packages"
"$VENV/bin/uv" pip sync --quiet --compile-bytecode --python "$VENV/bin/python" --require-hashes requirements.lock
"$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --no-deps --no-build-isolation -e .
touch "$VENV/.stamp"
