package link

import (
	"errors"
	"os"
	"testing"
	"time"

	productv1 "bailey/api/product/v1"
	"bailey/api/product/v1/wire"

	"golang.org/x/sys/unix"
)

func TestMisbehaviourEndsTheConversation(t *testing.T) {
	devNull, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer devNull.Close()
	short := frame(productv1.Header{Kind: productv1.FrameAnswer})
	short[0] = 31
	long := frame(productv1.Header{Kind: productv1.FrameAnswer})
	copy(long, []byte{1, 0, 1, 0}) // 65,537
	tests := map[string]struct {
		b     []byte
		fds   []int
		fatal bool // at once on a stream
	}{
		"length_below_header":        {b: short, fatal: true},
		"length_beyond_maximum":      {b: long, fatal: true},
		"kind_of_the_agent":          {b: frame(productv1.Header{Kind: productv1.FrameQuestion})},
		"kind_zero":                  {b: frame(productv1.Header{})},
		"answer_to_nothing":          {b: frame(productv1.Header{Kind: productv1.FrameAnswer, ID: 1000})},
		"descriptor_with_answer":     {b: frame(productv1.Header{Kind: productv1.FrameAnswer}), fds: []int{int(devNull.Fd())}},
		"many_descriptors":           {b: frame(productv1.Header{Kind: productv1.FrameAck}), fds: bytesToFDs(250, int(devNull.Fd()))},
		"finding_that_is_no_message": {b: frame(productv1.Header{Kind: productv1.FrameFinding}, 0xff, 0xff)},
		"finding_too_large":          {b: frame(productv1.Header{Kind: productv1.FrameFinding}, make([]byte, productv1.MaxFinding+1)...)},
		"subscribe_cut_short":        {b: frame(productv1.Header{Kind: productv1.FrameSubscribe}, 0x0a, 0x09)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bothTransports(t, func(t *testing.T, stream bool) {
				var told []error
				c, p := newPair(t, stream, Options{OnFault: func(err error) { told = append(told, err) }})
				_, done := run(c)
				before := openDescriptors(t)
				faults := DefaultFaultLimit
				if stream && tt.fatal {
					faults = 1
				}
				for range faults {
					p.raw(tt.b, tt.fds...)
				}
				select {
				case err := <-done:
					if !errors.Is(err, ErrFaults) {
						t.Errorf("Run: %v", err)
					}
				case <-time.After(5 * time.Second):
					t.Fatal("Run goes on")
				}
				if len(told) != faults {
					t.Errorf("told of %d faults: %v", len(told), told)
				}
				if after := openDescriptors(t); after > before {
					t.Errorf("%d descriptors before, %d after", before, after)
				}
			})
		})
	}
}

func TestOversizedDatagramIsAFault(t *testing.T) {
	c, p := newPair(t, false, Options{})
	_, done := run(c)
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20); err != nil {
		t.Fatal(err)
	}
	b := frame(productv1.Header{Kind: productv1.FrameFinding}, make([]byte, productv1.MaxFrame)...)
	for range DefaultFaultLimit {
		p.raw(b)
	}
	if err := <-done; !errors.Is(err, ErrFaults) || !errors.Is(err, wire.ErrOversized) {
		t.Errorf("Run: %v", err)
	}
}

func bytesToFDs(n, fd int) []int {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = fd
	}
	return fds
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
