#!/bin/sh
# Regenerates the Go code of every .proto below api/ with the plugins pinned in go.mod and Debian's protoc.
set -eu
cd "$(dirname "$0")/.."
command -v protoc >/dev/null || { echo "protoc is missing: apt-get install protobuf-compiler" >&2; exit 1; }
# What an Event is made of is recycled when it is decoded; everything else is rare.
pools=
for m in Event Question Process ProcessKey File Credentials Exec Fork Exit FileEvent; do
  pools="$pools --go-vtproto_opt=pool=bailey/api/product/v1.$m"
done
plugin() { go tool -n "$1"; }
protoc -I . \
  --plugin=protoc-gen-go="$(plugin protoc-gen-go)" --go_out=. --go_opt=paths=source_relative \
  --plugin=protoc-gen-go-vtproto="$(plugin protoc-gen-go-vtproto)" --go-vtproto_out=. \
  --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+unmarshal_unsafe+size+pool \
  $pools \
  api/product/v1/product.proto
# The Python example has the messages beside it, as made by the protoc of the oldest distribution we support (3.21).
protoc -I api/product/v1 --python_out=sdk/examples/python product.proto
for p in api/control/v1/*.proto; do
  [ -e "$p" ] || continue
  protoc -I . \
    --plugin=protoc-gen-go="$(plugin protoc-gen-go)" --go_out=. --go_opt=paths=source_relative \
    --plugin=protoc-gen-connect-go="$(plugin protoc-gen-connect-go)" --connect-go_out=. --connect-go_opt=paths=source_relative \
    "$p"
done
