package kernel

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bailey/test/vm/cache"
)

// unpack makes file of what is compressed beside it, unless it is there. Others may want it at the same time.
func unpack(ctx context.Context, file string) error {
	return cache.Once(file, func(unfinished string) error {
		content, err := output(ctx, filepath.Dir(file), "xz", "-dc", file+".xz")
		if err != nil {
			return err
		}
		return os.WriteFile(unfinished, content, 0o644)
	})
}

// Modules returns the files of the modules wanted and of all they depend on, in the order in which they load. What is no module is
// taken to be built in.
func (k *Kernel) Modules(ctx context.Context, wanted ...string) ([]string, error) {
	byName := map[string]string{}
	err := filepath.WalkDir(k.modules, func(name string, d fs.DirEntry, err error) error {
		if base, ok := strings.CutSuffix(strings.TrimSuffix(filepath.Base(name), ".xz"), ".ko"); ok && err == nil {
			byName[strings.ReplaceAll(base, "-", "_")] = strings.TrimSuffix(name, ".xz")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find the modules of %s: %w", k.Release, err)
	}
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		file, ok := byName[name]
		if seen[name] || !ok {
			return nil
		}
		seen[name] = true
		if !exists(file) { // only finit_module with a kernel's help could load it as it is
			if err := unpack(ctx, file); err != nil {
				return err
			}
		}
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
		if strings.TrimPrefix(s, "crypto_") == "crc32c" {
			soft[i] = "crc32c_generic" // an algorithm's name, not a module's
		}
	}
	return depends, soft, nil
}
