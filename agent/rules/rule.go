package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Action is what a rule refuses. The numbers are state.h's.
type Action uint8

// The actions, each with what a rule's File or Below is compared with.
const (
	Exec         Action = 1 + iota // the program or script that is executed
	OpenWrite                      // the file that is opened for writing, created, linked or truncated
	UnlinkRename                   // the file that is removed, renamed or replaced
	Connect                        // no file: Destination
	ModuleLoad                     // the module's file
	Ptrace                         // what the traced process executes
	MemfdExec                      // no file: executing one in memory that has no name
	MprotectExec                   // the file that is mapped executable
)

var actionWords = [...]string{"", "exec", "open_write", "unlink_rename", "connect", "module_load", "ptrace", "memfd_exec", "mprotect_exec"}

// String returns the action's word, which manifests, grants and products use.
func (a Action) String() string {
	if int(a) < len(actionWords) && a != 0 {
		return actionWords[a]
	}
	return fmt.Sprintf("action_%d", uint8(a))
}

// MarshalText writes the word.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the word.
func (a *Action) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAction(string(text))
	return err
}

// ParseAction reads an action's word.
func ParseAction(word string) (Action, error) {
	for i, w := range actionWords {
		if w == word && i > 0 {
			return Action(i), nil
		}
	}
	return 0, fmt.Errorf("unknown action %.40q; known: %s", word, strings.Join(actionWords[1:], ", "))
}

// Actions returns all actions.
func Actions() []Action {
	return []Action{Exec, OpenWrite, UnlinkRename, Connect, ModuleLoad, Ptrace, MemfdExec, MprotectExec}
}

// Match says what a rule holds for: all that is set must fit.
type Match struct {
	File        string       `json:"file,omitempty"`       // this very file or directory, as it is when the rule is installed
	Below       string       `json:"below,omitempty"`      // this directory and all below it, at any time
	Dev         uint64       `json:"dev,omitempty"`        // what stat says of File: if set, another one at that path is refused
	Ino         uint64       `json:"ino,omitempty"`        //
	Executable  string       `json:"executable,omitempty"` // what the acting process executes
	Cgroup      string       `json:"cgroup,omitempty"`     // a control group that the acting process is in or below, as in /proc/PID/cgroup
	CgroupID    uint64       `json:"cgroup_id,omitempty"`  // the same by its number
	Destination netip.Prefix `json:"destination,omitzero"`
	PortLow     uint16       `json:"port_low,omitempty"` // 0: every port
	PortHigh    uint16       `json:"port_high,omitempty"`
}

// Rule is one standing deny.
type Rule struct {
	Product string        `json:"product"`
	ID      string        `json:"id"` // the product's own name of it
	Action  Action        `json:"action"`
	Match   Match         `json:"match"`
	Lease   time.Duration `json:"lease"` // from when it is installed
}

// maxPath bounds a path in a rule, so that what is noted of a rule in the kernel fits.
const maxPath = 512

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

// ErrInvalid is the class of all that Check says.
var ErrInvalid = errors.New("invalid rule")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// CheckID says whether id can name a rule.
func CheckID(id string) error {
	if !idPattern.MatchString(id) {
		return invalid("the id %.80q must be 1 to 64 of letters, digits, and . _ : - after the first", id)
	}
	return nil
}

// Check says what is wrong with a rule as it is written, whatever is on this machine.
func (r *Rule) Check(maxLease time.Duration) error {
	if err := CheckID(r.ID); err != nil {
		return err
	}
	if !slices.Contains(Actions(), r.Action) {
		return invalid("%s is no action", r.Action)
	}
	if r.Lease < time.Second {
		return invalid("a lease of %v is too short: at least 1s", r.Lease)
	}
	if r.Lease > maxLease {
		return invalid("a lease of %v is too long: the operator allows %v; install the rule again before its lease ends", r.Lease, maxLease)
	}
	return r.Match.check(r.Action)
}

func (m *Match) check(a Action) error {
	for _, p := range []string{m.File, m.Below, m.Executable, m.Cgroup} {
		if p == "" {
			continue
		}
		if len(p) > maxPath {
			return invalid("a path of %d bytes: at most %d", len(p), maxPath)
		}
		if !path.IsAbs(p) || path.Clean(p) != p || strings.ContainsRune(p, 0) {
			return invalid("the path %.80q must be absolute, clean and without zero bytes", p)
		}
	}
	if m.File != "" && m.Below != "" {
		return invalid("file and below exclude one another")
	}
	if m.File == "" && (m.Dev != 0 || m.Ino != 0) {
		return invalid("dev and ino say which file is meant, and no file is named")
	}
	if m.Cgroup != "" && m.CgroupID != 0 {
		return invalid("cgroup and cgroup_id exclude one another")
	}
	if m.Below == "/" || m.Cgroup == "/" {
		return invalid("a rule for everything on the machine")
	}
	return m.checkFor(a)
}

// checkFor says whether an action can be matched by what is set.
func (m *Match) checkFor(a Action) error {
	file, subject := m.File != "" || m.Below != "", m.Executable != "" || m.Cgroup != "" || m.CgroupID != 0
	if file && (a == Connect || a == MemfdExec) {
		return invalid("%s has no file to be matched", a)
	}
	if a != Connect && (m.Destination.IsValid() || m.PortLow != 0 || m.PortHigh != 0) {
		return invalid("only connect has a destination")
	}
	if (m.PortLow == 0) != (m.PortHigh == 0) || m.PortLow > m.PortHigh {
		return invalid("ports %d to %d: both or neither, the lower one first", m.PortLow, m.PortHigh)
	}
	if a == Connect {
		return m.checkDestination(subject)
	}
	if file || subject || a == ModuleLoad || a == MemfdExec || a == Ptrace {
		return nil
	}
	return invalid("%s needs at least one of file, below, executable, cgroup", a)
}

func (m *Match) checkDestination(subject bool) error {
	d := m.Destination
	if !d.IsValid() {
		if m.PortHigh != 0 {
			return invalid("ports need a destination; 0.0.0.0/0 and ::/0 are all")
		}
		if !subject {
			return invalid("connect needs at least one of destination, executable, cgroup")
		}
		return nil
	}
	switch {
	case d.Addr().Zone() != "" || d.Addr().Is4In6():
		return invalid("the destination %s must be an IPv4 or IPv6 block without a zone", d)
	case d.Masked() != d:
		return invalid("the destination %s has bits beyond its length: write %s", d, d.Masked())
	case d.Bits() < 8 && !subject && m.PortHigh == 0:
		return invalid("the destination %s cuts the machine off: name ports, or whose connections are meant", d)
	}
	return nil
}

// subjectOnly reports whether the rule names no object: all that its process does is meant.
func (m *Match) subjectOnly() bool {
	return m.File == "" && m.Below == "" && !m.Destination.IsValid()
}

// String says what the rule holds for, for people.
func (m *Match) String() string {
	var out []string
	add := func(word, value string) {
		if value != "" {
			out = append(out, word+"="+value)
		}
	}
	add("file", m.File)
	add("below", m.Below)
	if m.Destination.IsValid() {
		to := m.Destination.String()
		if m.PortHigh != 0 {
			to += fmt.Sprintf(" port %d", m.PortLow)
			if m.PortHigh != m.PortLow {
				to += fmt.Sprintf("-%d", m.PortHigh)
			}
		}
		add("destination", to)
	}
	add("executable", m.Executable)
	add("cgroup", m.Cgroup)
	if len(out) == 0 {
		return "all"
	}
	return strings.Join(out, " ")
}
