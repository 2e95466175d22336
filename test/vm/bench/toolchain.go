package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"bailey/test/vm/initramfs"
)

// built are the packages of the standard library that the guest compiles as packages of a program: a build that changes only with Go.
var built = []string{"encoding/csv", "text/tabwriter", "mime/quotedprintable"}

// addToolchain adds Go's build command as far as that program needs it, the program's source, and a build cache that has everything but
// the program: what is compiled in the guest is the program alone.
func (p *pack) addToolchain(ctx context.Context, a *initramfs.Archive) error {
	root, err := p.goHere(ctx, "/", "env", "GOROOT")
	if err != nil {
		return err
	}
	source := filepath.Join(p.dir, "source")
	if err := writeSource(root, source); err != nil {
		return fmt.Errorf("write the program that is built: %w", err)
	}
	if _, err := p.goHere(ctx, source, "build", "-o", "/dev/null", "."); err != nil {
		return err
	}
	dirs, err := p.goHere(ctx, source, "list", "-deps", "-f", "{{if .Standard}}{{.Dir}}{{end}}", ".")
	if err != nil {
		return err
	}
	err = errors.Join(a.Tree("tests/source", source), a.Tree("tests/gocache", p.goCache()),
		a.Tree("tests/go/pkg/include", root+"/pkg/include"))
	for _, f := range []string{
		"bin/go", "pkg/tool/linux_amd64/compile", "pkg/tool/linux_amd64/asm", "pkg/tool/linux_amd64/link", "VERSION", "go.env", "src/go.mod",
		"src/vendor/modules.txt",
	} {
		err = errors.Join(err, a.File("tests/go/"+f, filepath.Join(root, f)))
	}
	for dir := range strings.FieldsSeq(dirs) {
		err = errors.Join(err, addSources(a, "tests/go"+strings.TrimPrefix(dir, root), dir))
	}
	return err
}

// addSources adds the files of one package, without its tests.
func addSources(a *initramfs.Archive, to, from string) error {
	entries, err := os.ReadDir(from)
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), "_test.go") {
			err = errors.Join(err, a.File(filepath.Join(to, e.Name()), filepath.Join(from, e.Name())))
		}
	}
	return err
}

// writeSource writes the program.
func writeSource(root, dir string) error {
	program := "package main\n\nimport (\n"
	for _, pkg := range built {
		to := filepath.Join(dir, filepath.Base(pkg))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(root, "src", pkg, "*.go"))
		if err != nil {
			return err
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(to, filepath.Base(f)), text, 0o644); err != nil {
				return err
			}
		}
		program += fmt.Sprintf("\t_ \"program/%s\"\n", filepath.Base(pkg))
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module program\n\ngo 1.26\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "main.go"), []byte(program+")\n\nfunc main() {}\n"), 0o644))
}

// goCache is a build cache that has this program and nothing else, kept between runs.
func (p *pack) goCache() string { return filepath.Join(p.o.cache, "bench-"+runtime.Version()) }

// goHere runs the go command with that cache, and returns what it says.
func (p *pack) goHere(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOCACHE="+p.goCache(), "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local", "CGO_ENABLED=0")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("go %s: %w: %s", args[0], err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
