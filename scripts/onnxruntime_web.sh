#!/usr/bin/env bash
# Make src/midway/demo/page/ort again: onnxruntime-web with its single-threaded use of WebAssembly.
# Needs npm, and the Python package onnxruntime for the licences, which the archive lacks. To take another version, change the two lines below and commit what this writes.
set -euo pipefail
cd "$(dirname "$0")/.."
version=1.30.0
archive_sha256=d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71

python=${PYTHON:-.venv/bin/python}
licences=$("$python" -c 'import onnxruntime, pathlib; print(pathlib.Path(onnxruntime.__file__).parent)')
target=$PWD/src/midway/demo/page/ort
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$work"
npm pack --silent "onnxruntime-web@$version" >/dev/null
echo "$archive_sha256  onnxruntime-web-$version.tgz" | sha256sum --check --quiet
tar xzf "onnxruntime-web-$version.tgz"

mkdir -p "$target"
# Named .js, because some file servers do not know .mjs and browsers then refuse the module.
cp package/dist/ort.wasm.bundle.min.mjs "$target/onnxruntime.js"
gzip -9 -n -c package/dist/ort-wasm-simd-threaded.wasm >"$target/onnxruntime.wasm.gz"
cp "$licences/LICENSE" "$target/LICENSE"
gzip -9 -n -c "$licences/ThirdPartyNotices.txt" >"$target/ThirdPartyNotices.txt.gz"
hash_of() { sha256sum "$1" | cut -d " " -f 1; }
cat >"$target/SOURCE.json" <<EOF
{
  "package": "onnxruntime-web",
  "version": "$version",
  "licence": "MIT",
  "archive_sha256": "$archive_sha256",
  "files": {
    "onnxruntime.js": {
      "from": "dist/ort.wasm.bundle.min.mjs",
      "sha256": "$(hash_of package/dist/ort.wasm.bundle.min.mjs)"
    },
    "onnxruntime.wasm.gz": {
      "from": "dist/ort-wasm-simd-threaded.wasm",
      "sha256": "$(hash_of package/dist/ort-wasm-simd-threaded.wasm)"
    }
  }
}
EOF
