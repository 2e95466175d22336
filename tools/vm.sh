#!/bin/sh
# Runs the matrix of kernels and, beside it, a whole Debian: as many machines at once as there are processors, of both together. With SHORT=1 only
# the machines that make test has time for, but all that is tested of a whole Debian. With ALL=1 then, one after the other, what takes hours: the
# other machines, everything of a whole Debian, and power cuts in each state of an update and CUTS times at random.
set -u
cd "$(dirname "$0")/.."
said=$(mktemp) failed=0
trap 'rm -f "$said"' EXIT
export BAILEY_VM_AT_ONCE="${BAILEY_VM_AT_ONCE:-$(nproc)}"
if [ -n "${SHORT:-}" ]; then
  matrix=-short tests=. packages=./test/vm/...
else
  matrix="-tamper docs/tamper.md" tests='^Test(BootAndReboot|PowerCut|Machine)$' packages="./test/vm/boot ./test/vm/machine"
fi
go test -p 2 -count=1 -timeout 50m -run "$tests" $packages >"$said" 2>&1 &
debian=$!
go run ./test/vm $matrix || failed=1
wait "$debian" || failed=1
cat "$said"
if [ -n "${ALL:-}" ]; then
  go run ./test/vm -more || failed=1
  BAILEY_VM_AT_ONCE=1 BAILEY_VM_LONG=1 BAILEY_VM_CUTS="${CUTS:-200}" go test -p 1 -count=1 -timeout 6h -v ./test/vm/boot ./test/vm/powercut || failed=1
fi
exit "$failed"
