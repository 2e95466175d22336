package manifest

import "bailey/agent/event"

// FileName is the manifest's name in a product folder.
const FileName = "manifest.toml"

// MaxBytes bounds the manifest's size.
const MaxBytes = 64 << 10

// Manifest is the whole file.
type Manifest struct {
	Name        string            `toml:"name" json:"name"`
	Version     string            `toml:"version" json:"version"`
	Description string            `toml:"description" json:"description,omitempty"`
	Run         Run               `toml:"run" json:"run"`
	Request     Request           `toml:"request" json:"request"`
	Limits      Limits            `toml:"limits" json:"limits"`
	Settings    map[string]string `toml:"settings" json:"settings,omitempty"` // defaults; the operator overrides values
}

// Run says how the product starts and what of the host is put into its root.
type Run struct {
	Command   []string `toml:"command" json:"command"`               // relative to the product folder, or absolute below a Read path
	SelfTest  []string `toml:"self_test" json:"self_test,omitempty"` // a command like it, by which a release finds out whether it is good; see Trial
	Transport string   `toml:"transport" json:"transport"`           // seqpacket (default) or stream
	Read      []string `toml:"read" json:"read,omitempty"`           // host paths bound read-only
	Connect   []string `toml:"connect" json:"connect,omitempty"`     // unix sockets of the host
	Network   []string `toml:"network" json:"network,omitempty"`     // must be empty: destinations cannot be granted yet

	// ExclusiveState says that no two releases may run at once, because what is written to the state directory must not be lost: an update restarts
	// the product. Otherwise a new release runs beside the old one for a while, on a copy of the state that is its own from then on.
	ExclusiveState bool `toml:"exclusive_state" json:"exclusive_state,omitempty"`
}

// Request is what the product asks the operator to grant.
type Request struct {
	See          []event.Kind `toml:"-" json:"-"`
	Decide       []event.Kind `toml:"-" json:"-"`
	SeeWords     []string     `toml:"see" json:"see,omitempty"`
	DecideWords  []string     `toml:"decide" json:"decide,omitempty"`
	Deny         bool         `toml:"deny" json:"deny,omitempty"`
	DenyCritical bool         `toml:"deny_critical" json:"deny_critical,omitempty"`
	Daemons      []string     `toml:"daemons" json:"daemons,omitempty"`
	Rules        []string     `toml:"rules" json:"rules,omitempty"` // actions that its rules in the kernel refuse
	OnMiss       string       `toml:"on_miss" json:"on_miss"`       // allow (default) or deny
	OpenScope    []string     `toml:"open_scope" json:"open_scope,omitempty"`
	Authority    string       `toml:"authority" json:"authority"` // live (default) or shadow
}

// Limits bound what the product consumes.
type Limits struct {
	Memory Size    `toml:"memory" json:"memory"` // default 128MiB
	Pids   int     `toml:"pids" json:"pids"`     // processes and threads, default 64
	CPU    float64 `toml:"cpu" json:"cpu"`       // cores, default 0.5
	Files  int     `toml:"files" json:"files"`   // descriptors of one process, default 256
	State  Size    `toml:"state" json:"state"`   // the state directory, default 64MiB
	Log    Size    `toml:"log" json:"log"`       // stdout and stderr kept on disk, default 4MiB
}

// defaults are what a manifest need not say.
func defaults() Manifest {
	return Manifest{
		Run:     Run{Transport: "seqpacket"},
		Request: Request{OnMiss: "allow", Authority: "live"},
		Limits:  Limits{Memory: 128 << 20, Pids: 64, CPU: 0.5, Files: 256, State: 64 << 20, Log: 4 << 20},
	}
}
