package critical

import (
	"bufio"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelModules returns the files of the modules that are loaded now: the next boot needs them.
func (c *collector) kernelModules() []string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return nil
	}
	dir := path.Join("/lib/modules", unix.ByteSliceToString(name.Release[:]))
	loaded := make(map[string]bool)
	if modules, err := os.ReadFile(filepath.Join(c.cfg.Proc, "modules")); err == nil {
		for line := range strings.Lines(string(modules)) {
			module, _, _ := strings.Cut(line, " ")
			loaded[module] = true
		}
	}
	f, err := os.Open(filepath.Join(c.cfg.Root, dir, "modules.dep"))
	if err != nil || len(loaded) == 0 {
		return nil
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		file, _, _ := strings.Cut(s.Text(), ":")
		base, _, _ := strings.Cut(path.Base(file), ".ko")
		if loaded[strings.ReplaceAll(base, "-", "_")] {
			out = append(out, path.Join(dir, file))
		}
	}
	return out
}
