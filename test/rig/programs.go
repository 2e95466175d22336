package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"bailey/internal/leakcheck"
)

// Main runs the tests of a package behind the leak check. The programs named, of Programs, are built once into a directory
// whose name goes to built, and are gone before leaks are looked for.
func Main(tests Tests, built *string, programs ...string) {
	leakcheck.Main(suite{tests, built, programs})
}

// Programs are what a rig can run, by name.
func Programs() map[string]string {
	return map[string]string{
		"bailey":    "bailey/cmd/bailey",
		"faulty":    "bailey/test/faulty",
		"allowlist": "bailey/products/allowlist",
		"clamav":    "bailey/products/clamav",
		"probe":     "bailey/agent/product/contain/testdata/hostile",
		"variant":   "bailey/test/e2e/testdata/variant",
	}
}

// Tests are a package's tests: a *testing.M, or something around one.
type Tests interface{ Run() int }

// suite is the tests with what they run.
type suite struct {
	tests    Tests
	built    *string
	programs []string
}

// PrebuiltEnv names a directory that holds the programs already, where there is no go command.
const PrebuiltEnv = "BAILEY_PROGRAMS"

func (s suite) Run() int {
	if dir := os.Getenv(PrebuiltEnv); dir != "" {
		*s.built = dir
		return s.tests.Run()
	}
	if os.Geteuid() != 0 {
		return s.tests.Run() // each test says that it needs root
	}
	dir, err := os.MkdirTemp("", "built-")
	if err == nil {
		*s.built = dir
		err = build(dir, s.programs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // the leak check tells if that failed
	return s.tests.Run()
}

func build(dir string, programs []string) error {
	all := Programs()
	for _, name := range programs {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, name), all[name])
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", all[name], err, msg)
		}
	}
	return nil
}
