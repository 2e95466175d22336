package kerneldev

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestThereAndBack(t *testing.T) {
	for _, d := range []struct{ major, minor uint32 }{{0, 1}, {8, 17}, {254, 0}, {259, 1<<20 - 1}, {4095, 256}} {
		inside := d.major<<20 | d.minor
		stat := unix.Mkdev(d.major, d.minor)
		if Of(stat) != inside || Stat(inside) != stat {
			t.Errorf("%d:%d is %#x inside and %#x outside, not %#x and %#x", d.major, d.minor, Of(stat), Stat(inside), inside, stat)
		}
		if major, minor := Split(inside); major != d.major || minor != d.minor {
			t.Errorf("%d:%d is split into %d:%d", d.major, d.minor, major, minor)
		}
	}
}
