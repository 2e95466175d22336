// Package roottest decides whether a test that needs root may run. It is not a way to skip a test in silence: under
// BAILEY_TEST_ROOT=1, which `make test` sets when it is root, a test that cannot run fails.
package roottest

import (
	"os"
	"testing"
)

// Require skips t, with the reason, unless the test runs as root; where root was promised it fails instead.
func Require(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	Unavailable(t, "needs root: "+why)
}

// Unavailable says that t cannot run here: a failure where `make test` promised everything, a skip with the reason elsewhere.
func Unavailable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("BAILEY_TEST_ROOT") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// InVM reports whether the test runs in a virtual machine of test/vm.
func InVM() bool { return os.Getenv("BAILEY_TEST_VM") != "" }

// RequireVM skips t, with the reason, outside the virtual machines of `make vm`, which run it.
func RequireVM(t testing.TB, why string) {
	t.Helper()
	if !InVM() {
		t.Skip(why + ": it runs in the virtual machines of `make vm`")
	}
}
