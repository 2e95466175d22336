package kernel

import (
	"os"
	"path/filepath"
	"testing"
)

// Debian has moved its kernels' files with 13 and after it.
func TestContentsAreFound(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files   []string
		modules string // empty: an error
	}{
		"debian12":    {[]string{"boot/vmlinuz-6.1.0-56-amd64", "lib/modules/6.1.0-56-amd64/kernel/fs/ext4.ko"}, "lib/modules/6.1.0-56-amd64"},
		"debian13":    {[]string{"boot/vmlinuz-6.12.1-amd64", "usr/lib/modules/6.12.1-amd64/kernel/fs/ext4.ko.xz"}, "usr/lib/modules/6.12.1-amd64"},
		"newer":       {[]string{"usr/lib/modules/7.3.4-amd64/vmlinuz", "usr/lib/modules/7.3.4-amd64/kernel/fs/ext4.ko.xz"}, "usr/lib/modules/7.3.4-amd64"},
		"no_kernel":   {[]string{"usr/lib/modules/7.3.4-amd64/kernel/fs/ext4.ko.xz"}, ""},
		"two_kernels": {[]string{"boot/vmlinuz-1", "boot/vmlinuz-2", "lib/modules/1/a.ko", "lib/modules/2/a.ko"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for _, f := range tc.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, f)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			modules, image, err := contents(root)
			if tc.modules == "" {
				if err == nil {
					t.Errorf("contents = %s, %s", modules, image)
				}
				return
			}
			if err != nil || modules != filepath.Join(root, tc.modules) || !exists(image) {
				t.Errorf("contents = %s, %s, %v", modules, image, err)
			}
		})
	}
}

func TestImagePackages(t *testing.T) {
	t.Parallel()
	const depends = "linux-image-amd64\n  Depends: linux-base-amd64\n  Depends: linux-image-7.3.4+deb13-amd64\n  Depends: linux-modules-amd64\n |Depends: dracut\n" +
		"  Depends: linux-binary-7.3.4+deb13-amd64\n  Depends: linux-modules-7.3.4+deb13-amd64\n  Suggests: linux-doc-7.3\n"
	var got []string
	for _, m := range imagePackage.FindAllStringSubmatch(depends, -1) {
		got = append(got, m[1])
	}
	want := []string{"linux-image-7.3.4+deb13-amd64", "linux-binary-7.3.4+deb13-amd64", "linux-modules-7.3.4+deb13-amd64"}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("the packages are %q, want %q", got, want)
	}
}
