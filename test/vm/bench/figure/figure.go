// Package figure is what the program that measures inside a virtual machine tells the host. It measures nothing.
//
// Invariant: a time is the guest's, which is what its processor executed.
package figure

// Line is the word that a line of JSON on the report follows.
const Line = "FIGURES "

// The operations, in the order of the table.
const (
	Exec   = "exec"
	Open   = "open+read+close"
	Create = "create+unlink"
	Read   = "read"
	Ioctl  = "ioctl"
	Build  = "go build"
)

// Operations are all of them.
var Operations = []string{Exec, Open, Create, Read, Ioctl, Build}

// Lane is what was measured in one state of the machine.
type Lane struct {
	Name string `json:"name"`
	// Nanoseconds of one operation, one figure for each batch of them.
	Nanoseconds map[string][]float64 `json:"nanoseconds"`
	// Hooks are the BPF programs that ran, by operation. The kernel's own bookkeeping of them costs time too, so that it is measured apart.
	Hooks map[string][]Hook `json:"hooks,omitempty"`
}

// Hook is what one BPF program did in one operation, on average.
type Hook struct {
	Program     string  `json:"program"` // the first 15 bytes of its name
	Type        string  `json:"type"`
	Calls       float64 `json:"calls"`
	Nanoseconds float64 `json:"nanoseconds"` // of one call
}
