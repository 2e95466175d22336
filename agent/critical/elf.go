package critical

import (
	"bytes"
	"debug/elf"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// maxInterp bounds the name of a program's loader: PATH_MAX.
const maxInterp = 4096

// addLibraries adds the loader and the libraries that an ELF file names; a script's interpreter counts as its loader.
// What is neither has none.
func (c *collector) addLibraries(name string) {
	f, err := os.Open(filepath.Join(c.cfg.Root, name))
	if err != nil {
		return
	}
	defer f.Close()
	line := make([]byte, 256)
	n, _ := f.ReadAt(line, 0)
	if script, ok := bytes.CutPrefix(line[:n], []byte("#!")); ok {
		if words := strings.Fields(string(script)); len(words) > 0 {
			c.addProgram(words[0])
		}
		return
	}
	program, err := elf.NewFile(f)
	if err != nil {
		return
	}
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP && segment.Filesz < maxInterp {
			interp, err := io.ReadAll(segment.Open())
			if err == nil {
				c.addProgram(string(bytes.TrimRight(interp, "\x00")))
			}
		}
	}
	needed, err := program.ImportedLibraries()
	if err != nil {
		return
	}
	var own []string
	for _, tag := range [...]elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		dirs, err := program.DynString(tag)
		if err != nil {
			continue
		}
		for _, list := range dirs {
			for _, dir := range strings.Split(list, ":") {
				own = append(own, strings.NewReplacer("$ORIGIN", path.Dir(name), "${ORIGIN}", path.Dir(name)).Replace(dir))
			}
		}
	}
	for _, library := range needed {
		c.addLibrary(library, program.Class, program.Machine, own)
	}
}

// addLibrary finds a library where the loader would look for it: the file's own path first, then the system's. A file of
// another class or machine is passed over, as the loader does.
func (c *collector) addLibrary(library string, class elf.Class, machine elf.Machine, own []string) {
	key := library + "\x00" + class.String() + machine.String()
	if len(own) == 0 {
		if found, ok := c.libraries[key]; ok {
			c.addProgram(found)
			return
		}
	}
	dirs := append(append([]string(nil), own...), c.libDirs...)
	for _, dir := range dirs {
		name := path.Join(dir, library)
		f, err := elf.Open(filepath.Join(c.cfg.Root, name))
		if err != nil {
			continue
		}
		fits := f.Class == class && f.Machine == machine
		if f.Close() != nil || !fits {
			continue
		}
		if len(own) == 0 {
			c.libraries[key] = name
		}
		c.addProgram(name)
		return
	}
}

// librarySearchPath is what /etc/ld.so.conf names, then the loader's defaults.
func (c *collector) librarySearchPath() []string {
	var out []string
	var read func(name string, depth int)
	read = func(name string, depth int) {
		for _, line := range c.lines(name) {
			pattern, isInclude := strings.CutPrefix(line, "include ")
			if !isInclude {
				out = append(out, line)
				continue
			}
			pattern = strings.TrimSpace(pattern)
			if !path.IsAbs(pattern) {
				pattern = path.Join("/etc", pattern)
			}
			files, err := filepath.Glob(filepath.Join(c.cfg.Root, pattern))
			if err != nil || depth == 4 {
				continue
			}
			for _, f := range files {
				inside, err := filepath.Rel(c.cfg.Root, f)
				if err == nil {
					read("/"+inside, depth+1)
				}
			}
		}
	}
	read("/etc/ld.so.conf", 0)
	return append(out, libraryDirs[:]...)
}
