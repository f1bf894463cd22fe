#!/usr/bin/env bash
# Installs rs5m-build into a virtual environment of its own: what both images and the Apptainer definition have in common.
# Run in the root of the sources:
#   docker/install.sh PREFIX dependencies   needs pyproject.toml and constraints.txt
#   docker/install.sh PREFIX project        needs pipeline/, stages/, manifests/ too
# Environment:
#   EXTRAS           optional dependencies, comma-separated; default: s3,cluster
#   TORCH_INDEX_URL  where torch and torchvision come from; empty: from the index of everything else, which has CUDA wheels
#   PYTHON           the interpreter to make the environment with; default: python3
# pip's own settings (PIP_INDEX_URL, PIP_CERT ...) hold as always.
set -euo pipefail

prefix=${1:?usage: install.sh PREFIX dependencies|project}
extras=${EXTRAS-s3,cluster}
python=${PYTHON:-python3}

install() {
    # Wheels only: nothing is compiled, so no image needs a compiler.
    "$prefix/bin/python" -m pip install --disable-pip-version-check --no-compile --only-binary :all: \
        --constraint constraints.txt "$@"
}

case ${2:?usage: install.sh PREFIX dependencies|project} in
dependencies)
    "$python" -m venv "$prefix"
    wanted=$(mktemp)
    if [[ -n ${TORCH_INDEX_URL:-} ]]; then
        # These two alone from there, without what they depend on: an index of torch holds other packages too, in other
        # versions than the pinned ones. The next step finds them installed and adds what they need.
        grep -E '^torch(vision)?==' constraints.txt >"$wanted"
        install --no-deps --index-url "$TORCH_INDEX_URL" --requirement "$wanted"
    fi
    "$python" docker/requirements.py pyproject.toml "$extras" >"$wanted"
    install --requirement "$wanted"
    rm "$wanted"
    ;;
project)
    # The wheel is built by the pinned backend in a throw-away environment: the backend does not stay in the image.
    made=$(mktemp -d)
    "$python" -m venv "$made/venv"
    "$made/venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt hatchling
    "$made/venv/bin/python" -m hatchling build --target wheel --directory "$made"
    install --no-deps "$made"/*.whl
    rm -r "$made"
    # Bytecode now, since no user of the image may write beside the code.
    "$prefix/bin/python" -m compileall -q "$prefix/lib" >/dev/null || true
    "$prefix/bin/python" -m pip check --disable-pip-version-check
    "$prefix/bin/rs5m-build" --help >/dev/null
    ;;
*)
    echo "install.sh: $2: it is dependencies or project" >&2
    exit 2
    ;;
esac
