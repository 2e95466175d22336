package contain

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// The helper's descriptors. Main gets the first one; the others follow it.
const (
	SpecFD = 3 // read: the Spec as JSON, after the helper is inside its control group
	// SpecFD+1 write: status messages, one JSON object a line
	// SpecFD+2 the product's socket
	// SpecFD+3 read: never written; end of file means that the agent is gone, and everybody who holds the pipe for it
)

// Places inside a product's root.
const (
	ProductDir = "/product"
	StateDir   = "/state"
	TmpDir     = "/tmp"
	SocketFD   = 3 // in the product
)

// maxSpec bounds what the helper reads.
const maxSpec = 1 << 20

// Spec is all that a helper needs to know to start one product.
type Spec struct {
	Stage string `json:"stage"` // "root" or "init"; set by this package

	Name          string   `json:"name"`
	Root          string   `json:"root"`    // an empty host directory to build the product's root on
	Release       string   `json:"release"` // host directory
	State         string   `json:"state"`   // host directory, owned by UID
	StateReadOnly bool     `json:"state_read_only,omitempty"`
	Read          []string `json:"read,omitempty"`
	Connect       []string `json:"connect,omitempty"`
	Command       []string `json:"command"`
	Env           []string `json:"env"`

	// Outlive leaves the product's life to the pipe alone: it goes on while anybody holds the pipe's write end, be it another
	// process than the one that started it.
	Outlive bool `json:"outlive,omitempty"`

	// Network gives it the host's network, to connect to others by TCP and to ask for names, and not a bare loopback. No product has it.
	Network bool `json:"network,omitempty"`

	// Idle runs it only when nobody else wants the processor or the disk.
	Idle bool `json:"idle,omitempty"`

	UID       uint32 `json:"uid"`        // also the group id
	TmpBytes  int64  `json:"tmp_bytes"`  // size of /tmp; counted as the product's memory
	FileBytes int64  `json:"file_bytes"` // the largest file it may write
	Pids      int    `json:"pids"`
	Files     int    `json:"files"`
}

// Note is a step of the containment that this machine cannot do. The product runs without it.
type Note struct {
	Component string `json:"component"` // e.g. "landlock"
	Summary   string `json:"summary"`
	Remedy    string `json:"remedy"`
}

// message goes from helper to agent.
type message struct {
	Note    *Note  `json:"note,omitempty"`
	Error   string `json:"error,omitempty"`   // the start failed
	Started int    `json:"started,omitempty"` // the product runs; its pid in its own namespace
	Exit    *Exit  `json:"exit,omitempty"`
}

// Exit says how a product ended.
type Exit struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"` // 0 when it exited by itself
}

// readSpec reads the spec from a plain descriptor, which stays open: an os.File would close it when it is collected, and by
// then the number belongs to something else.
func readSpec(fd int) (*Spec, error) {
	b := make([]byte, 0, 4096)
	for len(b) < maxSpec {
		b = slices.Grow(b, 4096)
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read spec: %w", err)
		}
		if n == 0 {
			break
		}
		b = b[:len(b)+n]
	}
	var s Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	return &s, nil
}

// status is the helper's end of the status pipe.
type status struct{ f *os.File }

func (s status) send(m message) {
	b, err := json.Marshal(m)
	if err == nil {
		_, _ = s.f.Write(append(b, '\n')) // nobody listens when the agent is gone, and then the helper ends anyway
	}
}

func (s status) note(component, summary, remedy string) {
	s.send(message{Note: &Note{Component: component, Summary: summary, Remedy: remedy}})
}
