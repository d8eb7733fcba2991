#!/usr/bin/env bash
# Install Debian's Chromium for the tests of the demo page, if it is missing and we may.
set -euo pipefail
if command -v chromium >/dev/null; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo 'chromium is missing: install it, or the tests of the demo page do not run' >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --no-install-recommends chromium
