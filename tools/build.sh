#!/bin/sh
# Builds the programs and the product folders. usage: tools/build.sh DIST VERSION
set -eu
cd "$(dirname "$0")/.."
dist=$1 version=$2
export CGO_ENABLED=0
mkdir -p "$dist/products"
go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$dist/bailey" ./cmd/bailey
go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$dist/bailey-fleet" ./cmd/bailey-fleet

# A product folder is what `bailey product install` takes: the manifest and what its command names.
for manifest in products/*/manifest.toml sdk/examples/*/manifest.toml; do
  [ -e "$manifest" ] || continue
  source=$(dirname "$manifest") name=$(basename "$(dirname "$manifest")")
  stage=$dist/products/.$name.new
  rm -rf "$stage"
  mkdir -p "$stage"
  for f in "$source"/*; do
    case $f in
      *.go | */testdata | */README.md | *_test.* | */__pycache__) continue ;;
    esac
    if [ -d "$f" ] && ls "$f"/*.go >/dev/null 2>&1; then continue; fi # code, which is in the program
    cp -R "$f" "$stage/"
  done
  if [ -n "$(go list -f '{{if eq .Name "main"}}{{len .GoFiles}}{{end}}' "./$source" 2>/dev/null)" ]; then
    go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$stage/$name" "./$source"
  fi
  rm -rf "$dist/products/$name"
  mv "$stage" "$dist/products/$name"
done
echo "built $dist/bailey, $dist/bailey-fleet and $(ls "$dist/products" | tr '\n' ' ')"
