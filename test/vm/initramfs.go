package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archive writes a cpio archive in the "newc" format that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	w    *bufio.Writer
	ino  int
	dirs map[string]bool
	size int64
}

func (a *archive) pad() error {
	for ; a.size%4 != 0; a.size++ {
		if err := a.w.WriteByte(0); err != nil {
			return err
		}
	}
	return nil
}

// entry writes one file, directory or link with the directories above it.
func (a *archive) entry(name string, mode uint32, size int64, content io.Reader) error {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if dir := path.Dir(name); dir != "." && !a.dirs[dir] {
		if err := a.entry(dir, 0o40755, 0, nil); err != nil {
			return err
		}
	}
	if mode&0o170000 == 0o40000 {
		if a.dirs[name] {
			return nil
		}
		a.dirs[name] = true
	}
	a.ino++
	n, err := fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if err != nil {
		return err
	}
	a.size += int64(n)
	if err := a.pad(); err != nil || content == nil {
		return err
	}
	copied, err := io.Copy(a.w, content)
	if err != nil {
		return err
	}
	if copied != size {
		return fmt.Errorf("%s changed while it was read", name)
	}
	a.size += copied
	return a.pad()
}

func (a *archive) text(name, content string) error {
	return a.entry(name, 0o100644, int64(len(content)), strings.NewReader(content))
}

func (a *archive) link(name, target string) error {
	return a.entry(name, 0o120777, int64(len(target)), strings.NewReader(target))
}

// file adds the file from as name.
func (a *archive) file(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.entry(name, 0o100000|uint32(info.Mode().Perm()), info.Size(), f)
}

// tree adds everything below from, if it exists.
func (a *archive) tree(name, from string) error {
	if _, err := os.Stat(from); err != nil {
		return nil
	}
	return filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := path.Join(name, filepath.ToSlash(strings.TrimPrefix(file, from)))
		switch {
		case d.IsDir():
			return a.entry(target, 0o40755, 0, nil)
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return a.link(target, to)
		case d.Type().IsRegular():
			return a.file(target, file)
		}
		return nil
	})
}

// tools are the commands that tests may find in the guest, all of them busybox.
var tools = strings.Fields("sh true false sleep cat echo ls cp mv rm ln mkdir rmdir touch chmod chown mount umount id kill ps dd env test head tail grep sed wc seq setsid nohup unshare date uname stat find pwd printf")

// writeInitramfs packs the guest's init, modules, tools and tests.
func writeInitramfs(ctx context.Context, work string, k *kernel, tests []testProgram, o options) error {
	initProgram := filepath.Join(work, "init")
	if err := goBuild(ctx, "build", "-trimpath", "-o", initProgram, "./test/vm/guest"); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(work, "initramfs"))
	if err != nil {
		return err
	}
	defer f.Close()
	a := &archive{w: bufio.NewWriterSize(f, 1<<20), dirs: map[string]bool{}}
	if err := a.system(k, initProgram); err != nil {
		return err
	}
	if err := a.tests(tests, o); err != nil {
		return err
	}
	if err := a.entry("TRAILER!!!", 0, 0, nil); err != nil {
		return err
	}
	return a.w.Flush()
}

// system adds what every guest has.
func (a *archive) system(k *kernel, initProgram string) error {
	if err := a.file("init", initProgram); err != nil {
		return err
	}
	modules, err := k.modules()
	if err != nil {
		return fmt.Errorf("find the modules: %w", err)
	}
	var order []string
	for _, m := range modules {
		order = append(order, filepath.Base(m))
		if err := a.file("modules/"+filepath.Base(m), m); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"modules/order": strings.Join(order, "\n"),
		"etc/passwd":    "root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", "etc/group": "root:x:0:\nnogroup:x:65534:\n",
		"etc/shadow": "root:*:1::::::\n", "etc/os-release": "ID=bailey-test\n", "etc/hostname": "guest\n",
	} {
		if err := a.text(name, content); err != nil {
			return err
		}
	}
	if err := a.file("bin/busybox", k.busybox); err != nil {
		return err
	}
	for _, t := range tools {
		if err := a.link("bin/"+t, "busybox"); err != nil {
			return err
		}
	}
	return a.link("usr/bin", "/bin")
}

// tests adds the test programs, each in a copy of its package's directory as far as tests read it, and the list of them.
func (a *archive) tests(tests []testProgram, o options) error {
	var list strings.Builder
	for _, t := range tests {
		dir := "/tests/" + t.pkg
		program := dir + "/" + filepath.Base(t.binary)
		if err := a.file(program, t.binary); err != nil {
			return err
		}
		if err := a.tree(dir+"/testdata", filepath.Join(t.dir, "testdata")); err != nil {
			return err
		}
		for place, binary := range t.helpers {
			if err := a.file(path.Join(dir, place), binary); err != nil {
				return err
			}
		}
		fmt.Fprintf(&list, "%s %s %s -test.v -test.timeout=%s", dir, program, o.perTest, o.perTest)
		if o.run != "" {
			fmt.Fprintf(&list, " -test.run=%s", o.run)
		}
		list.WriteString("\n")
	}
	return a.text("tests/list", list.String())
}
