package incident

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Falco and new kernels.
//
// Date: 2026-04 and 2026-09.
// Source: github.com/falcosecurity/falco/issues/3829 and /3955.
// Shipped: a kernel update under a sensor. On one kernel the verifier refused its program, on another a record of a length that its
// parser did not know ended it, again and again.
// Must: G1 G4 G13. A sensor that cannot be loaded is replaced by less and said to be; a record that nobody knows is skipped and
// counted.
func TestC02NewKernel(t *testing.T) {
	t.Parallel()
	t.Run("program_refused", func(t *testing.T) {
		s := newSceneWith(t, func(s *scene) string {
			s.Wrap = hiding(t, s.Dir, "/sys/kernel/btf/vmlinux")
			return ""
		})
		s.replay(story{ID: "C2-07a", Name: "Falco and new kernels, 2026", Must: "G1 G4 G13",
			Did: "none: the agent's own BPF program cannot be loaded, a healthy product goes on"}, func(r *replay) {
			r.watchFor(500 * time.Millisecond)
			r.saysDegraded("sensor.process")
			if n := r.Product(witness).GetCounters().GetAnswers(); n == 0 {
				r.errorf("nobody was asked")
			}
		})
	})
	t.Run("record_unknown", func(t *testing.T) {
		s := newScene(t)
		s.replay(story{ID: "C2-07b", Name: "Falco and new kernels, 2026", Must: "G1 G4 G13",
			Did: "none: records of unknown kind and length are put into the agent's ring buffer"}, func(r *replay) {
			before := r.unknownRecords()
			var sent uint64
			r.watch(func() {
				ring := ringOf(t, int(r.Status().GetPid()))
				defer closing(t, ring)
				for _, size := range []int{1, 4, 16, 40, 104, 400, 4000} {
					for _, kind := range []uint16{0, 5, 0xffff} {
						inject(t, ring, record(kind, size))
						sent++
					}
				}
				r.until("every record is counted", 10*time.Second, func() error {
					if got := r.unknownRecords() - before; got != sent {
						return fmt.Errorf("%d of %d", got, sent)
					}
					return nil
				})
				time.Sleep(300 * time.Millisecond)
			})
		})
	})
}

// saysDegraded checks that a part of the agent says what it lacks and what to do.
func (r *replay) saysDegraded(component string) {
	r.t.Helper()
	for _, h := range r.Status().GetHealth() {
		if strings.HasPrefix(h.GetComponent(), component) && h.GetStatus() != "ok" && h.GetRemedy() != "" {
			return
		}
	}
	r.errorf("no health entry of %s says that something is missing: %v", component, r.Status().GetHealth())
}

// unknownRecords is how many records the process sensor could not read.
func (r *replay) unknownRecords() uint64 {
	for _, s := range r.Status().GetSensors() {
		if s.GetName() == "process" {
			c := s.GetCounters()
			return c["malformed"] + c["unknown_kinds"]
		}
	}
	return 0
}

// record is a record of the process sensor of some kind and size, its own length in its header.
func record(kind uint16, size int) []byte {
	b := make([]byte, max(size, 16))
	binary.LittleEndian.PutUint16(b, kind)
	binary.LittleEndian.PutUint16(b[2:], uint16(len(b)))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b[:size]
}

// ringOf opens the agent's ring buffer, which it names in its descriptors.
func ringOf(t *testing.T, pid int) *ebpf.Map {
	t.Helper()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range infos {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		var kind, id uint32
		for line := range strings.Lines(string(text)) {
			_, _ = fmt.Sscanf(line, "map_type: %d", &kind)
			_, _ = fmt.Sscanf(line, "map_id: %d", &id)
		}
		if ebpf.MapType(kind) != ebpf.RingBuf {
			continue
		}
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			t.Fatalf("open the agent's ring buffer: %v", err)
		}
		return m
	}
	t.Fatal("the agent has no ring buffer")
	return nil
}

// inject puts a record into a ring buffer as a program of the kernel's side would.
func inject(t *testing.T, ring *ebpf.Map, b []byte) {
	t.Helper()
	values, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(b)), MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, values)
	if err := values.Put(uint32(0), b); err != nil {
		t.Fatal(err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{
			asm.StoreImm(asm.R10, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, values.FD()),
			asm.Mov.Reg(asm.R2, asm.R10),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "end"),
			asm.LoadMapPtr(asm.R1, ring.FD()),
			asm.Mov.Reg(asm.R2, asm.R0),
			asm.Mov.Imm(asm.R3, int32(len(b))),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnRingbufOutput.Call(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatalf("load the program that writes to the ring buffer: %v", err)
	}
	defer closing(t, program)
	if _, err := program.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil {
		t.Fatalf("write to the ring buffer: %v", err)
	}
}

func closing(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// hiding is a command that starts its arguments in a mount namespace in which path is an empty file, or an empty directory.
func hiding(t *testing.T, dir, path string) []string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatalf("%s is to be hidden from the agent: %v", path, err)
	}
	over := filepath.Join(dir, "over-"+filepath.Base(path))
	if info.IsDir() {
		err = os.Mkdir(over, 0o755)
	} else {
		err = os.WriteFile(over, nil, 0o444)
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"unshare", "-m", "sh", "-c", `mount --bind "$0" "$1" && shift && exec "$@"`, over, path}
}
