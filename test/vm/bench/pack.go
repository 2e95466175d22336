package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"bailey/test/rig"
	"bailey/test/vm/initramfs"
	"bailey/test/vm/kernel"
)

// pack makes the initramfs that the machine boots with.
type pack struct {
	o      options
	dir    string
	kernel *kernel.Kernel
	// fapolicyd is its package's name, once it is in
	fapolicyd string
}

func (p *pack) initrd() string { return filepath.Join(p.dir, "initramfs") }

// make builds everything and packs it.
func (p *pack) make(ctx context.Context) error {
	if err := p.build(ctx); err != nil {
		return err
	}
	public, tokens, err := p.operator(ctx)
	if err != nil {
		return err
	}
	a, err := initramfs.Guest(ctx, p.initrd(), filepath.Join(p.dir, "init"), p.kernel)
	if err != nil {
		return err
	}
	err = errors.Join(initramfs.Tools(a, p.kernel), p.addModule(ctx, a), p.addPrograms(a),
		a.Text("tests/operator.pub", public), a.Text("tests/tokens", tokens))
	if strings.Contains(p.o.lanes, "fapolicyd") {
		err = errors.Join(err, p.addFapolicyd(ctx, a))
	}
	if p.o.builds > 0 {
		err = errors.Join(err, p.addToolchain(ctx, a))
	}
	list := fmt.Sprintf("/tests /tests/inside %s -lanes=%s -batches=%d -builds=%d -tokens=/tests/tokens\n", p.o.limit, p.o.lanes, p.o.batches, p.o.builds)
	return errors.Join(err, a.Text("tests/list", list), a.Close())
}

// programs is what runs in the guest.
func (p *pack) programs() map[string]string {
	return map[string]string{
		"init": "bailey/test/vm/guest", "inside": "bailey/test/vm/bench/inside", "bailey": "bailey/cmd/bailey",
		"product": "bailey/test/bench/product", "faulty": "bailey/test/faulty",
	}
}

// build compiles what runs in the guest.
func (p *pack) build(ctx context.Context) error {
	for name, pkg := range p.programs() {
		if err := initramfs.Build(ctx, filepath.Join(p.dir, name), pkg); err != nil {
			return err
		}
	}
	return nil
}

func (p *pack) addPrograms(a *initramfs.Archive) error {
	nothing := filepath.Join(p.dir, "nothing")
	err := os.WriteFile(nothing, rig.TinyProgram("bench"), 0o755)
	for _, name := range []string{"bailey", "product", "faulty", "nothing"} {
		err = errors.Join(err, a.File("tests/programs/"+name, filepath.Join(p.dir, name)))
	}
	return errors.Join(err, a.File("tests/inside", filepath.Join(p.dir, "inside")))
}

// addModule adds RAM disks, which the program inside loads with parameters.
func (p *pack) addModule(ctx context.Context, a *initramfs.Archive) error {
	files, err := p.kernel.Modules(ctx, "brd")
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("RAM disks take %d modules, 1 expected", len(files))
	}
	return a.File("tests/brd.ko", files[0])
}

// operator makes an operator's key and a token for every lane with a guard: making them takes long in the guest.
func (p *pack) operator(ctx context.Context) (public, tokens string, err error) {
	key, pass := filepath.Join(p.dir, "key"), filepath.Join(p.dir, "passphrase")
	if err := os.WriteFile(pass, []byte("correct horse battery staple\n"), 0o600); err != nil {
		return "", "", err
	}
	if public, err = p.bailey(ctx, "operator", "keygen", "--out", key, "--name", "bench", "--passphrase-file", pass); err != nil {
		return "", "", err
	}
	for range strings.Count(p.o.lanes, "guard") {
		token, err := p.bailey(ctx, "operator", "sign", "--key", key, "--passphrase-file", pass, "--any-host", "--scope", "stop,state", "--for", "24h")
		if err != nil {
			return "", "", err
		}
		tokens += token
	}
	return public, tokens, nil
}

func (p *pack) bailey(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(p.dir, "bailey"), args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("bailey %s: %w: %s", strings.Join(args[:2], " "), err, exit.Stderr)
	}
	return string(out), err
}
