package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// download fetches and unpacks the packages with an apt state of its own.
func download(ctx context.Context, root string, s Source) error {
	state := filepath.Join(root, "apt")
	opts, err := privateApt(state, s)
	if err != nil {
		return err
	}
	if _, err := output(ctx, state, "apt-get", append(opts, "update")...); err != nil {
		return err
	}
	packages, err := imagePackages(ctx, state, opts)
	if err != nil {
		return err
	}
	if _, err := output(ctx, state, "apt-get", append(append(opts, "download", "busybox-static"), packages...)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(state, "*.deb"))
	if err != nil || len(debs) != 1+len(packages) {
		return fmt.Errorf("apt-get download left %d packages, %d expected", len(debs), 1+len(packages))
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

// privateApt makes a package manager's state below dir and returns the options that make apt use it.
func privateApt(dir string, s Source) ([]string, error) {
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	const line = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=amd64] http://deb.debian.org/%s %s main\n"
	sources := fmt.Sprintf(line, "debian", s.Suite) + fmt.Sprintf(line, "debian-security", s.Suite+"-security")
	if s.Backports {
		sources += fmt.Sprintf(line, "debian", s.Suite+"-backports")
	}
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(sources), 0o644); err != nil {
		return nil, err
	}
	opts := []string{"-q", "-o", "Dir::Etc::sourcelist=" + dir + "/sources.list", "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::State::lists=" + dir + "/lists",
		"-o", "Dir::Cache=" + dir, "-o", "Dir::Cache::archives=" + dir + "/archives", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"}
	if s.Backports {
		opts = append(opts, "-o", "APT::Default-Release="+s.Suite+"-backports")
	}
	return opts, nil
}

// imagePackage are the packages that a kernel consists of: one in Debian 12, image, binary and modules later.
var imagePackage = regexp.MustCompile(`Depends: (linux-(?:image|binary|modules)-\d\S*)`)

// imagePackages returns what linux-image-amd64 stands for.
func imagePackages(ctx context.Context, dir string, opts []string) ([]string, error) {
	var found []string
	for next := []string{"linux-image-amd64"}; len(next) > 0; next = next[1:] {
		out, err := output(ctx, dir, "apt-cache", append(opts, "depends", next[0])...)
		if err != nil {
			return nil, err
		}
		for _, m := range imagePackage.FindAllStringSubmatch(string(out), -1) {
			if !slices.Contains(found, m[1]) {
				found, next = append(found, m[1]), append(next, m[1])
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("linux-image-amd64 depends on no kernel")
	}
	return found, nil
}

// extract writes the uncompressed kernel. The header's fields are in the kernel's Documentation/arch/x86/boot.rst.
func extract(ctx context.Context, root string) error {
	_, name, err := contents(root)
	if err != nil {
		return err
	}
	image, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" {
		return fmt.Errorf("%s is no bzImage", name)
	}
	start := (int(image[0x1f1])+1)*512 + int(binary.LittleEndian.Uint32(image[0x248:]))
	end := start + int(binary.LittleEndian.Uint32(image[0x24c:]))
	if end > len(image) || start > end {
		return fmt.Errorf("%s: the payload lies outside the file", name)
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
		return fmt.Errorf("%s does not unpack to an ELF file", name)
	}
	return os.WriteFile(filepath.Join(root, "vmlinux"), out, 0o644)
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
