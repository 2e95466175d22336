package product

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bailey/agent/product/contain"
	"bailey/internal/boottime"
)

// memory is what the agent knows of one running product, in memory that the keeper holds as well: a page of counters that
// are always true, wherever the agent is killed, and behind it the product's life as JSON, written before the product is
// kept.
//
//	0     8  magic
//	8     8  events made for the product
//	16    8  questions made for it
//	4096  …  life
type memory struct {
	file *os.File
	page []byte
}

const (
	memoryMagic = 0x0031_5945_4c49_4142 // "BAILEY1"
	pageSize    = 4096
	maxLife     = 256 << 10
)

// life is what the next agent must know of a running product.
type life struct {
	Product  string         `json:"product"`
	Place    string         `json:"place"`    // of its control group
	Record   string         `json:"record"`   // digest of what it was started with
	Manifest string         `json:"manifest"` // likewise
	Init     int            `json:"init"`     // pid of its namespace's pid 1
	PID      int            `json:"pid"`
	ReadOnly bool           `json:"read_only,omitempty"` // its state directory was full
	Notes    []contain.Note `json:"notes,omitempty"`
	Began    uint64         `json:"began"` // nanoseconds since boot
	Since    time.Time      `json:"since"`
	Restarts uint32         `json:"restarts"`
	Ends     []uint64       `json:"ends,omitempty"` // of earlier runs, nanoseconds since boot
	Delay    time.Duration  `json:"delay,omitempty"`
}

func newMemory(product string) (*memory, error) {
	fd, err := unix.MemfdCreate("bailey-"+product, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make product memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "product memory")
	if err := f.Truncate(pageSize); err != nil {
		return nil, errors.Join(fmt.Errorf("make product memory: %w", err), f.Close())
	}
	m, err := mapMemory(f)
	if err != nil {
		return nil, err
	}
	m.word(0).Store(memoryMagic)
	return m, nil
}

// openMemory takes over f, also when it fails, and checks that it is a product's memory.
func openMemory(f *os.File) (*memory, error) {
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() < pageSize || st.Size() > pageSize+maxLife) {
		err = fmt.Errorf("%d bytes of type %v", st.Size(), st.Mode().Type())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open product memory: %w", err), f.Close())
	}
	m, err := mapMemory(f)
	if err != nil {
		return nil, err
	}
	if got := m.word(0).Load(); got != memoryMagic {
		m.close()
		return nil, fmt.Errorf("open product memory: it begins with %#x: another version's", got)
	}
	return m, nil
}

func mapMemory(f *os.File) (*memory, error) {
	m := &memory{file: f}
	conn, err := f.SyscallConn()
	if err == nil {
		cerr := conn.Control(func(fd uintptr) {
			m.page, err = unix.Mmap(int(fd), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map product memory: %w", err), f.Close())
	}
	return m, nil
}

// word is one of the page's numbers. It is good until close.
func (m *memory) word(at int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&m.page[at])) }

func (m *memory) events() *atomic.Uint64    { return m.word(8) }
func (m *memory) questions() *atomic.Uint64 { return m.word(16) }

func (m *memory) write(l life) error {
	b, err := json.Marshal(l)
	if err == nil && len(b) > maxLife {
		err = fmt.Errorf("%d bytes, at most %d", len(b), maxLife)
	}
	if err == nil {
		err = m.file.Truncate(pageSize) // what was there may have been longer
	}
	if err == nil {
		_, err = m.file.WriteAt(b, pageSize)
	}
	if err != nil {
		return fmt.Errorf("write product memory: %w", err)
	}
	return nil
}

func (m *memory) read() (life, error) {
	st, err := m.file.Stat()
	if err != nil {
		return life{}, fmt.Errorf("read product memory: %w", err)
	}
	b := make([]byte, max(0, min(st.Size()-pageSize, maxLife)))
	if _, err := m.file.ReadAt(b, pageSize); err != nil {
		return life{}, fmt.Errorf("read product memory: %w", err)
	}
	return parseLife(b)
}

func parseLife(b []byte) (life, error) {
	var l life
	if err := json.Unmarshal(b, &l); err != nil {
		return life{}, fmt.Errorf("read product memory: %w", err)
	}
	if l.Init <= 1 || l.PID < 0 || l.Began > math.MaxInt64 || l.Delay < 0 {
		return life{}, fmt.Errorf("read product memory: pid 1 is %d, the product %d, begun at %d", l.Init, l.PID, l.Began)
	}
	return l, nil
}

func (m *memory) close() {
	_ = unix.Munmap(m.page) // it is mapped
	_ = m.file.Close()      // and never written through this descriptor again
}

// digest identifies what a product was started with. It is the same for a value that was just made and for one that was
// read from a file.
func digest[T any](v T) (string, error) {
	b, err := json.Marshal(v)
	if err == nil {
		var again T
		if err = json.Unmarshal(b, &again); err == nil {
			b, err = json.Marshal(again)
		}
	}
	if err != nil {
		return "", fmt.Errorf("digest what a product is started with: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// ago turns a time since boot into one that durations can be measured from.
func ago(boot uint64) time.Time {
	return time.Now().Add(-time.Duration(boottime.Now() - min(boot, boottime.Now())))
}

// sinceBoot is the inverse of ago.
func sinceBoot(t time.Time) uint64 {
	now, passed := boottime.Now(), uint64(max(time.Since(t), 0))
	return now - min(passed, now)
}
