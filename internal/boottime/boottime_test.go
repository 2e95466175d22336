package boottime_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"bailey/internal/boottime"
)

func TestNowIsTheKernelsBootClock(t *testing.T) {
	t.Parallel()
	var before, after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &before); err != nil {
		t.Fatal(err)
	}
	now := boottime.Now()
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &after); err != nil {
		t.Fatal(err)
	}
	if now < uint64(before.Nano()) || now > uint64(after.Nano()) {
		t.Fatalf("Now() = %d, want a value in [%d, %d]", now, before.Nano(), after.Nano())
	}
}

func TestFromTicksRoundTrips(t *testing.T) {
	t.Parallel()
	for _, ticks := range []uint64{0, 1, 99, 100, 123456789} {
		if got := boottime.ToTicks(boottime.FromTicks(ticks)); got != ticks {
			t.Errorf("ToTicks(FromTicks(%d)) = %d", ticks, got)
		}
		if got := boottime.ToTicks(boottime.FromTicks(ticks) + 9_999_999); got != ticks {
			t.Errorf("a time within tick %d is in tick %d", ticks, got)
		}
	}
}

// This process started between boot and now, and /proc says when in ticks: proves the unit.
func TestFromTicksAgreesWithProc(t *testing.T) {
	t.Parallel()
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks uint64
	if _, err := fmt.Sscan(string(fields[19]), &ticks); err != nil {
		t.Fatal(err)
	}
	now, start := boottime.Now(), boottime.FromTicks(ticks)
	if start > now || now-start > 3600*1_000_000_000 {
		t.Fatalf("this process started at %d and now is %d", start, now)
	}
}

func TestNowDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { boottime.Now() }); n != 0 {
		t.Fatalf("Now allocates %v times", n)
	}
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		boottime.Now()
	}
}
