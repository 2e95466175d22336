package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"bailey/test/rig"
	"bailey/test/vm/initramfs"
	"bailey/test/vm/kernel"
)

// testProgram is one package's test binary.
type testProgram struct {
	pkg, dir, binary string
	helpers          map[string]string // programs in testdata, by their place below dir: the guest has no go command
	run              string            // the tests of it that run, all if empty
	rigged           bool              // it stands on test/rig, which has programs to run
}

// build compiles the test binary of every package selected that has tests, unless another machine had it already.
func (b *bench) build(ctx context.Context, selected []selection) ([]testProgram, error) {
	var tests []testProgram
	for _, s := range selected {
		found, err := testPackages(ctx, s.packages)
		if err != nil {
			return nil, err
		}
		for _, t := range found {
			if built, ok := b.tests[t.pkg]; ok {
				t = built
			} else if t, err = b.buildTest(ctx, t); err != nil {
				return nil, err
			}
			t.run = s.run
			tests = append(tests, t)
		}
	}
	if len(tests) == 0 {
		return nil, errors.New("no package has tests")
	}
	return tests, nil
}

// testPackages lists the packages with tests that match a pattern.
func testPackages(ctx context.Context, pattern string) ([]testProgram, error) {
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}} {{.TestImports}} {{.XTestImports}}{{end}}", pattern)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var tests []testProgram
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(strings.NewReplacer("[", " ", "]", " ").Replace(line)); len(f) > 1 {
			tests = append(tests, testProgram{pkg: f[0], dir: f[1], rigged: slices.Contains(f[2:], "bailey/test/rig")})
		}
	}
	return tests, nil
}

func (b *bench) buildTest(ctx context.Context, t testProgram) (testProgram, error) {
	t.binary = filepath.Join(b.work, strings.ReplaceAll(t.pkg, "/", "_")+".test")
	if err := initramfs.Build(ctx, t.binary, t.pkg, "-c"); err != nil {
		return t, err
	}
	if err := t.buildHelpers(ctx); err != nil {
		return t, err
	}
	if t.rigged && b.programs == "" {
		b.programs = filepath.Join(b.work, "programs")
		for name, pkg := range rig.Programs() {
			if err := initramfs.Build(ctx, filepath.Join(b.programs, name), pkg); err != nil {
				return t, err
			}
		}
	}
	b.tests[t.pkg] = t
	return t, nil
}

// buildHelpers compiles the programs testdata/NAME/main.go to testdata/NAME/NAME.
func (t *testProgram) buildHelpers(ctx context.Context) error {
	sources, err := filepath.Glob(filepath.Join(t.dir, "testdata/*/main.go"))
	if err != nil {
		return err
	}
	t.helpers = map[string]string{}
	for _, s := range sources {
		if text, err := os.ReadFile(s); err != nil {
			return err
		} else if !bytes.Contains(text, []byte("\npackage main\n")) {
			continue
		}
		name := filepath.Base(filepath.Dir(s))
		binary := t.binary + "." + name
		if err := initramfs.Build(ctx, binary, filepath.Dir(s)); err != nil {
			return err
		}
		t.helpers[filepath.Join("testdata", name, name)] = binary
	}
	return nil
}

// pack writes the initramfs of a machine that runs tests.
func (b *bench) pack(ctx context.Context, path string, k *kernel.Kernel, tests []testProgram, skip string) error {
	a, err := initramfs.Guest(ctx, path, b.init, k)
	if err != nil {
		return err
	}
	return errors.Join(initramfs.Tools(a, k), b.packTests(a, tests, skip), a.Close())
}

// packTests adds the test programs, each in a copy of its package's directory as far as tests read it, and the list of them. Those that match skip do not run.
func (b *bench) packTests(a *initramfs.Archive, tests []testProgram, skip string) error {
	var list strings.Builder
	rigged := false
	for _, t := range tests {
		dir := "/tests/" + t.pkg
		program := dir + "/" + filepath.Base(t.binary)
		err := errors.Join(a.File(program, t.binary), a.Tree(dir+"/testdata", filepath.Join(t.dir, "testdata")))
		for place, binary := range t.helpers {
			err = errors.Join(err, a.File(path.Join(dir, place), binary))
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "%s %s %s -test.v -test.short -test.skip=%s -test.timeout=%s", dir, program, b.o.perTest, skip, b.o.perTest)
		if t.run != "" {
			fmt.Fprintf(&list, " -test.run=%s", t.run)
		}
		list.WriteString("\n")
		rigged = rigged || t.rigged
	}
	if rigged {
		if err := a.Tree("tests/programs", b.programs); err != nil {
			return err
		}
	}
	return a.Text("tests/list", list.String())
}
