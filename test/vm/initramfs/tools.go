package initramfs

import (
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"

	"bailey/test/vm/kernel"
)

// busyboxTools are the commands that tests may find in the guest.
var busyboxTools = strings.Fields("sh true false sleep cat echo ls cp mv rm ln mkdir rmdir touch chmod chown mount umount id kill ps dd env test head tail grep sed wc seq setsid nohup unshare date uname stat find pwd printf")

// Tools adds what a usable system has beside the kernel.
func Tools(a *Archive, k *kernel.Kernel) error {
	err := errors.Join(a.File("bin/busybox", k.Busybox), a.Link("usr/bin", "/bin"))
	for _, t := range busyboxTools {
		err = errors.Join(err, a.Link("bin/"+t, "busybox"))
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", "etc/group": "root:x:0:\nnogroup:x:65534:\n",
		"etc/shadow": "root:*:1::::::\n", "etc/os-release": "ID=bailey-test\n", "etc/hostname": "guest\n",
	} {
		err = errors.Join(err, a.Text(name, content))
	}
	// The host's mkfs.ext4: busybox makes no ext4. The tests that need it say so where the host has none.
	if program, missing := exec.LookPath("mkfs.ext4"); missing == nil {
		err = errors.Join(err, a.Dynamic("bin/mkfs.ext4", program), a.File("etc/mke2fs.conf", "/etc/mke2fs.conf"))
	}
	return err
}

// Dynamic adds a program of the host that is linked dynamically as name, with its libraries.
func (a *Archive) Dynamic(name, program string) error {
	libraries, err := exec.Command("ldd", program).Output()
	if err != nil {
		return fmt.Errorf("find the libraries of %s: %w", program, err)
	}
	if strings.Contains(string(libraries), "not found") {
		return fmt.Errorf("libraries of %s are missing:\n%s", program, libraries)
	}
	err = a.File(name, program)
	for word := range strings.FieldsSeq(string(libraries)) {
		if path.IsAbs(word) && !a.files[word] {
			a.files[word] = true
			err = errors.Join(err, a.File(word, word))
		}
	}
	return err
}
