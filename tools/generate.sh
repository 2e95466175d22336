#!/bin/sh
# Generates all committed generated code: Go from the .proto files, and Go with BPF objects from the sensors' C.
set -eu
cd "$(dirname "$0")/.."
sh api/generate.sh
packages=$(grep -rl --include='*.go' '^//go:generate' . | xargs -r -n1 dirname | sort -u)
[ -z "$packages" ] || go generate $packages
