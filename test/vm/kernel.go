package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// suite is the Debian release whose kernel is tested.
const suite = "bookworm"

// wanted are the modules that tests need beyond what Debian builds in; what they depend on is found.
var wanted = []string{"overlay", "loop", "ext4"}

// kernel is an unpacked, never installed kernel package.
type kernel struct {
	root    string // of the unpacked package
	release string
	vmlinux string // the uncompressed image: QEMU starts it directly, and decompressing is most of an emulated boot
	busybox string
}

// fetchKernel returns the cached kernel, downloading it the first time. Offline works from then on.
func fetchKernel(ctx context.Context, cache string) (*kernel, error) {
	cache, err := filepath.Abs(cache)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(cache, suite)
	if _, err := os.Stat(filepath.Join(root, "vmlinux")); err != nil {
		fmt.Println("vm: downloading Debian's kernel (about 70 MB, once)")
		if err := os.RemoveAll(root + ".new"); err != nil {
			return nil, err
		}
		if err := download(ctx, root+".new"); err != nil {
			return nil, err
		}
		if err := os.Rename(root+".new", root); err != nil {
			return nil, err
		}
	}
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("%s holds %d kernels: remove it and try again", root, len(images))
	}
	return &kernel{root: root, release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-"), vmlinux: filepath.Join(root, "vmlinux"),
		busybox: filepath.Join(root, "bin/busybox")}, nil
}

// download fetches the packages with an apt state of its own, so that the host's sources and lists stay as they are.
func download(ctx context.Context, root string) error {
	state := filepath.Join(root, "apt")
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(state, d), 0o755); err != nil {
			return err
		}
	}
	signed := "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=amd64]"
	sources := fmt.Sprintf("deb %s http://deb.debian.org/debian %s main\ndeb %s http://deb.debian.org/debian-security %s-security main\n", signed, suite, signed, suite)
	if err := os.WriteFile(filepath.Join(state, "sources.list"), []byte(sources), 0o644); err != nil {
		return err
	}
	opts := []string{"-q", "-o", "Dir::Etc::sourcelist=" + state + "/sources.list", "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::State::lists=" + state + "/lists",
		"-o", "Dir::Cache=" + state, "-o", "Dir::Cache::archives=" + state + "/archives", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"}
	if _, err := output(ctx, state, "apt-get", append(opts, "update")...); err != nil {
		return err
	}
	depends, err := output(ctx, state, "apt-cache", append(opts, "depends", "linux-image-amd64")...)
	if err != nil {
		return err
	}
	_, name, found := strings.Cut(string(depends), "Depends: ")
	if !found {
		return errors.New("linux-image-amd64 depends on no kernel")
	}
	name, _, _ = strings.Cut(name, "\n")
	if _, err := output(ctx, state, "apt-get", append(opts, "download", strings.TrimSpace(name), "busybox-static")...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(state, "*.deb"))
	if err != nil || len(debs) != 2 {
		return fmt.Errorf("apt-get download left %d packages, 2 expected", len(debs))
	}
	for _, d := range debs {
		if _, err := output(ctx, state, "dpkg", "-x", d, root); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(state); err != nil {
		return err
	}
	return extract(ctx, root)
}

// extract writes the uncompressed kernel. The header's fields are in the kernel's Documentation/arch/x86/boot.rst.
func extract(ctx context.Context, root string) error {
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("the package holds %d kernels", len(images))
	}
	image, err := os.ReadFile(images[0])
	if err != nil {
		return err
	}
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" {
		return fmt.Errorf("%s is no bzImage", images[0])
	}
	start := (int(image[0x1f1])+1)*512 + int(binary.LittleEndian.Uint32(image[0x248:]))
	end := start + int(binary.LittleEndian.Uint32(image[0x24c:]))
	if end > len(image) || start > end {
		return fmt.Errorf("%s: the payload lies outside the file", images[0])
	}
	payload := image[start:end]
	cmd := exec.CommandContext(ctx, "xz", "-dc")
	if bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		cmd = exec.CommandContext(ctx, "zstd", "-dc")
		payload = payload[:len(payload)-4] // the size that the build appends
	}
	cmd.Stdin = bytes.NewReader(payload)
	out, _ := cmd.Output() // xz complains about the appended size and has written all by then
	if !bytes.HasPrefix(out, []byte(elf.ELFMAG)) {
		return fmt.Errorf("%s does not unpack to an ELF file", images[0])
	}
	return os.WriteFile(filepath.Join(root, "vmlinux"), out, 0o644)
}

// modules returns the files of wanted and of all they depend on, in the order in which they load.
func (k *kernel) modules() ([]string, error) {
	byName := map[string]string{}
	err := filepath.WalkDir(filepath.Join(k.root, "lib/modules", k.release), func(name string, d fs.DirEntry, err error) error {
		if base, ok := strings.CutSuffix(filepath.Base(name), ".ko"); ok && err == nil {
			byName[strings.ReplaceAll(base, "-", "_")] = name
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		file, ok := byName[name]
		if seen[name] || !ok { // what is no module is built in
			return nil
		}
		seen[name] = true
		depends, soft, err := dependencies(file)
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		for _, d := range append(depends, soft...) {
			if err := visit(d); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, w := range wanted {
		if err := visit(w); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// dependencies reads what a module says about itself: what it needs, and what it will ask the kernel to load when used.
func dependencies(file string) (depends, soft []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, nil, errors.New("no .modinfo")
	}
	data, err := s.Data()
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range strings.Split(string(data), "\x00") {
		if v, ok := strings.CutPrefix(entry, "depends="); ok && v != "" {
			depends = append(depends, strings.Split(strings.ReplaceAll(v, "-", "_"), ",")...)
		}
		if v, ok := strings.CutPrefix(entry, "softdep=pre: "); ok {
			soft = append(soft, strings.Fields(strings.ReplaceAll(v, "-", "_"))...)
		}
	}
	for i, s := range soft {
		if s == "crc32c" {
			soft[i] = "crc32c_generic" // an algorithm's name, not a module's
		}
	}
	return depends, soft, nil
}

// output runs a program in dir and returns what it wrote to its standard output.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", name, args[len(args)-1], err, out, stderr.String())
	}
	return out, nil
}
