#!/bin/sh
# Renew the hash-locked requirements from pyproject.toml. Needs `uv` on the PATH; names no index address.
set -eu
cd "$(dirname "$0")/.."
compile() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
    "$@" pyproject.toml requirements/build.in
}
compile --extra dev -o requirements/dev.txt
compile --extra embedded -c requirements/dev.txt -o requirements/runtime.txt
