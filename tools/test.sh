#!/bin/sh
# Runs everything that must pass before a change lands, goes on after a failure, and ends with a summary.
set -u
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/go/bin" CGO_ENABLED=0
summary= failed=0

step() { # name command...
  name=$1
  shift
  echo "==> $name"
  begin=$(date +%s)
  if "$@"; then result=ok; else result=FAILED failed=$((failed + 1)); fi
  took=$(($(date +%s) - begin))
  echo "<== $name: $result (${took}s)"
  summary="$summary
$(printf '  %-32s %-7s %4ds' "$name" "$result" "$took")"
}

skip() { # name why
  echo "==> $1: not run here: $2"
  summary="$summary
$(printf '  %-32s skipped: %s' "$1" "$2")"
}

# The packages that touch no kernel object; the race detector needs cgo.
race_packages() {
  go list ./agent/event ./agent/health ./agent/unlock/... ./agent/hub ./agent/verdict ./agent/config ./agent/sensor/replay \
    ./agent/product/manifest ./agent/product/link ./api/... ./sdk/... ./products/...
}
# Where the machine itself is judged (how long an exec stood still, what grows), nothing else may run meanwhile.
alone="./test/e2e ./test/incident ./test/soak" machines=./test/vm/...
together() { go test -p 2 -count=1 -timeout 10m $(go list ./... | grep -v -x -F "$(go list $alone $machines)"); }
one_by_one() { go test -p 1 -count=1 -timeout 15m $alone; }
race() { CGO_ENABLED=1 go test -race -short -count=1 $(race_packages); }
virtual() { SHORT=1 sh tools/vm.sh; }
benches_once() { go test -run '^$' -bench . -benchtime 1x -timeout 10m ./...; }
demo() { make --no-print-directory run FOR=20s </dev/null; }

step setup sh tools/setup.sh test || exit 1
step build make --no-print-directory build
step lint make --no-print-directory lint
if [ "$(id -u)" = 0 ]; then export BAILEY_TEST_ROOT=1; else echo "not root: tests that need it say so and are skipped"; fi
step "go test, packages together" together
step "go test, one by one" one_by_one
if command -v gcc >/dev/null; then step "go test -race" race; else skip "go test -race" "gcc is missing"; fi
if command -v qemu-system-x86_64 >/dev/null; then
  step "kernels, a whole Debian in VMs" virtual
else
  skip "kernels and a whole Debian in VMs" "qemu-system-x86_64 is missing"
fi
if [ "$(id -u)" = 0 ]; then step "make run FOR=20s" demo; else skip "make run FOR=20s" "needs root"; fi
step "every benchmark once" benches_once
step "every fuzz test for 3s" sh tools/fuzz.sh 3s

echo "summary:$summary"
if [ "$failed" -gt 0 ]; then echo "$failed step(s) failed"; exit 1; fi
echo "all passed"
