#!/bin/sh
# Runs every fuzz test of this module for the given time each; stops at the first that finds something.
# usage: tools/fuzz.sh TIME
set -eu
cd "$(dirname "$0")/.."
duration=$1 ran=0
said=$(mktemp)
trap 'rm -f "$said"' EXIT

# found_nothing says whether a run that failed only met its own deadline: Go before 1.27 may report that as an error (go.dev/issue/75804).
# What a fuzz test finds, it writes down.
found_nothing() {
  grep -q '^ *context deadline exceeded$' "$said" && ! grep -q 'Failing input written' "$said"
}

for file in $(grep -rlE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*\(' . | sort); do
  for target in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file"); do
    echo "fuzz: $(dirname "$file") $target for $duration"
    ok=true
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" -fuzzminimizetime 500x "$(dirname "$file")" >"$said" 2>&1 || ok=false
    tail -n 60 "$said"
    $ok || found_nothing || exit 1
    ran=$((ran + 1))
  done
done
echo "fuzz: $ran fuzz tests found nothing"
[ "$ran" -gt 0 ]
