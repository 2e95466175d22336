#!/bin/sh
# Runs every fuzz test of this module for the given time each; stops at the first that finds something.
# usage: tools/fuzz.sh TIME
set -eu
cd "$(dirname "$0")/.."
duration=$1 ran=0
for file in $(grep -rlE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*\(' . | sort); do
  for target in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file"); do
    echo "fuzz: $(dirname "$file") $target for $duration"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" "$(dirname "$file")"
    ran=$((ran + 1))
  done
done
echo "fuzz: $ran fuzz tests found nothing"
[ "$ran" -gt 0 ]
