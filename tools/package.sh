#!/bin/sh
# Builds the deb and the rpm from what tools/build.sh has built. usage: tools/package.sh DIST VERSION
set -eu
cd "$(dirname "$0")/.."
dist=$1 version=$2
export CGO_ENABLED=0 GOOS=linux
arch=$(go env GOARCH)
stage=$dist/package
rm -rf "$stage"
mkdir -p "$stage/products" "$stage/completions" "$stage/doc"

# A package's version begins with a digit and has no dash; without a tag the number of commits puts it in order.
case $version in
v[0-9]* | [0-9]*.*) package_version=$(printf %s "${version#v}" | tr - +) ;;
*) package_version=0.0.0+$(git rev-list --count HEAD 2>/dev/null || echo 0).$(printf %s "$version" | tr - .) ;;
esac

for manifest in products/*/manifest.toml; do
  name=$(basename "$(dirname "$manifest")")
  cp -R "$dist/products/$name" "$stage/products/"
done
find "$stage/products" -type d -exec chmod 755 {} +
find "$stage/products" -type f -perm -u+x -exec chmod 755 {} +
find "$stage/products" -type f ! -perm -u+x -exec chmod 644 {} +

# What is completed is asked for with the program of this machine, whatever it is built for.
env GOOS= GOARCH= go build -trimpath -o "$stage/native" ./cmd/bailey
for shell in bash zsh fish; do "$stage/native" completion "$shell" >"$stage/completions/bailey.$shell"; done

cp README.md docs/*.md "$stage/doc/"
# Links to what is not in the package lead nowhere there; the text is the same.
cp LICENSE "$stage/doc/copyright"
cp LICENSE.bpf "$stage/doc/"
# The licences of everything that is linked in, each once: their terms ask for it.
{
  printf '==== The Go standard library: LICENSE\n\n'
  cat "$(go env GOROOT)/LICENSE"
  echo
} >"$stage/doc/third-party-licences.txt"
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/bailey ./products/... | sort -u |
  while read -r path moduleversion dir; do
    found=
    for f in "$dir"/LICENSE* "$dir"/LICENCE* "$dir"/COPYING* "$dir"/NOTICE*; do
      [ -f "$f" ] || continue
      found=yes
      printf '==== %s %s: %s\n\n' "$path" "$moduleversion" "$(basename "$f")"
      cat "$f"
      echo
    done
    [ -n "$found" ] || { echo "package: $path has no licence" >&2; exit 1; }
  done >>"$stage/doc/third-party-licences.txt"
find "$stage/doc" -type f -exec chmod 644 {} +
chmod 755 "$stage/doc" "$stage/completions"

# The same tree gives the same package.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export ARCH=$arch PACKAGE_VERSION=$package_version SOURCE_DATE_EPOCH
sed "s|dist/|$dist/|" packaging/nfpm.yaml >"$stage/nfpm.yaml"
mkdir -p .cache
env GOOS= GOARCH= go build -modfile=tools/go.mod -o .cache/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm
for packager in deb rpm; do
  rm -f "$dist"/*."$packager"
  .cache/nfpm package --config "$stage/nfpm.yaml" --packager "$packager" --target "$dist/"
done
