#!/usr/bin/env bash
# The default tier of tests with the oldest versions that pyproject.toml allows on Python 3.11 and the newest on 3.13:
#     scripts/versions.sh [oldest|newest]        # PYTHON_OLDEST and PYTHON_NEWEST name the interpreters
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/uv"
"$scratch/uv/bin/pip" install -q uv

# Installs with uv, which knows the lowest versions, and runs the tests.
check() {
    local name=$1 python=$2 resolution=$3
    "$scratch/uv/bin/uv" venv -q --python "$python" "$scratch/$name"
    "$scratch/uv/bin/uv" pip install -q --python "$scratch/$name/bin/python" --resolution "$resolution" '.[dev]'
    "$scratch/$name/bin/python" --version
    "$scratch/uv/bin/uv" pip list --python "$scratch/$name/bin/python" 2>/dev/null |
        grep -E '^(torch|torchvision|numpy|pandas|scikit-image|hydra-core|pydantic|numba|scipy|matplotlib|pyarrow) '
    NUMBA_CACHE_DIR=$scratch/numba-$name "$scratch/$name/bin/python" -m pytest -n auto -p no:cacheprovider
}
[ "${1:-newest}" = newest ] && check newest "${PYTHON_NEWEST:-3.13}" highest
[ "${1:-oldest}" = oldest ] && check oldest "${PYTHON_OLDEST:-3.11}" lowest-direct
echo "All well."
