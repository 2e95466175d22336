package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"bailey/internal/strictjson"
)

// Schema is the newest form of a description that this version reads.
//
// A form has exactly the names below: another name is an error, because a machine that skips what it does not know could skip a limit. A new
// name makes a new form. ErrNewer marks a description in a form that is yet to come; it hides its own release and nothing else.
const Schema = 1

// MaxDescription bounds a description in bytes of JSON.
const MaxDescription = 8 << 10

// ErrNewer says that a description needs a newer version of this program.
var ErrNewer = errors.New("described in a newer form")

// Urgency is how quickly a release should spread, in its vendor's words.
type Urgency string

// The urgencies.
const (
	Routine Urgency = "routine"
	Urgent  Urgency = "urgent" // answers an attack that is going on
)

// Description is what a release says about itself: the `custom` of its target, and part of its bundle's manifest.
type Description struct {
	Schema     int                   `json:"schema"`
	Vendor     string                `json:"vendor"`
	Product    string                `json:"product"`
	Kind       Kind                  `json:"kind"`
	Version    Version               `json:"version"`
	Epoch      int64                 `json:"epoch"`              // security floor: a machine goes below it only by its operator's word
	Requires   map[string]Constraint `json:"requires,omitempty"` // what it works with: platform, code, content
	Platforms  []string              `json:"platforms"`          // os/arch
	RollbackTo []Version             `json:"rollback_to,omitempty"`
	Urgency    Urgency               `json:"urgency"`
	MinRampS   int64                 `json:"min_ramp_s,omitempty"`   // the vendor's limit: whoever rolls out may be slower, never faster
	MinCanaryS int64                 `json:"min_canary_s,omitempty"` // as above
	Health     *Health               `json:"health,omitempty"`
	Provenance string                `json:"provenance_sha256,omitempty"` // digest of where it was built from, checked when it was published
}

// Health is what a release promises of itself while it is watched. Zero means the operator's own limit.
type Health struct {
	WindowS       int64 `json:"window_s,omitempty"`
	StartTimeoutS int64 `json:"start_timeout_s,omitempty"`
	MaxRSSMiB     int64 `json:"max_rss_mib,omitempty"`
}

// What a release can require something of. Code and content are those of the same product.
const (
	RequiresPlatform = "platform" // Bailey's own version
	RequiresCode     = "code"
	RequiresContent  = "content"
)

const (
	maxPlatforms  = 16
	maxRollbackTo = 16
	maxSeconds    = 90 * 24 * 3600
	maxMiB        = 1 << 20
)

var (
	platform     = regexp.MustCompile(`^[a-z0-9]{1,16}/[a-z0-9]{1,16}$`)
	platformFile = regexp.MustCompile(`^[a-z0-9]{1,16}-[a-z0-9]{1,16}$`)
	hexDigest    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Parse reads a description. What is not exactly one is an error.
func Parse(text []byte) (Description, error) {
	if err := strictjson.Check(text, strictjson.Limits{Bytes: MaxDescription, Depth: 4}); err != nil {
		return Description{}, fmt.Errorf("read the description of a release: %w", err)
	}
	var form struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return Description{}, fmt.Errorf("read the description of a release: %w", err)
	}
	if form.Schema > Schema {
		return Description{}, fmt.Errorf("%w: form %d, and this version reads %d", ErrNewer, form.Schema, Schema)
	}
	var d Description
	if err := strictjson.Unmarshal(text, strictjson.Limits{Bytes: MaxDescription, Depth: 4}, &d); err != nil {
		return Description{}, fmt.Errorf("read the description of a release: %w", err)
	}
	return d, d.Check()
}

// JSON returns the description as Parse reads it, or what is wrong with it.
func (d Description) JSON() ([]byte, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	return plain(d)
}

// plain is json.Marshal without what only HTML needs: constraints stay readable.
func plain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Stream returns which stream the release says it belongs to. It is a claim: authority comes from the role that signed.
func (d Description) Stream() Stream {
	return Stream{Vendor: d.Vendor, Product: d.Product, Kind: d.Kind}
}

// Check reports what is wrong with the description.
func (d Description) Check() error {
	if d.Schema != Schema {
		return fmt.Errorf("describe a release: form %d is not known", d.Schema)
	}
	if err := d.Stream().Check(); err != nil {
		return fmt.Errorf("describe a release: %w", err)
	}
	for _, problem := range []struct {
		found bool
		text  string
	}{
		{d.Version.IsZero(), "it has no version"},
		{d.Epoch < 0, "its epoch is negative"},
		{len(d.Platforms) == 0 || len(d.Platforms) > maxPlatforms, fmt.Sprintf("it names 1 to %d platforms", maxPlatforms)},
		{slices.ContainsFunc(d.Platforms, func(p string) bool { return !platform.MatchString(p) }), "a platform is os/arch, such as linux/amd64"},
		{!slices.IsSorted(d.Platforms) || len(slices.Compact(slices.Clone(d.Platforms))) != len(d.Platforms), "its platforms are sorted, each once"},
		{len(d.RollbackTo) > maxRollbackTo, fmt.Sprintf("it names more than %d versions to roll back to", maxRollbackTo)},
		{slices.ContainsFunc(d.RollbackTo, func(v Version) bool { return v.Compare(d.Version) >= 0 }), "it can only be rolled back to older versions"},
		{d.Urgency != Routine && d.Urgency != Urgent, "its urgency is routine or urgent"},
		{!within(d.MinRampS, maxSeconds) || !within(d.MinCanaryS, maxSeconds), "its times are 0 to 90 days in seconds"},
		{d.Health != nil && !d.Health.sane(), "its health limits are out of range"},
		{d.Provenance != "" && !hexDigest.MatchString(d.Provenance), "its provenance is no SHA-256 in hexadecimal"},
	} {
		if problem.found {
			return fmt.Errorf("describe %s: %s", d.Stream(), problem.text)
		}
	}
	return d.checkRequires()
}

// checkRequires refuses what nobody would check.
func (d Description) checkRequires() error {
	for what, c := range d.Requires {
		switch {
		case what != RequiresPlatform && what != RequiresCode && what != RequiresContent, what == string(d.Kind):
			return fmt.Errorf("describe %s: it cannot require anything of %.40q", d.Stream(), what)
		case len(c.all) == 0:
			return fmt.Errorf("describe %s: what it requires of %s is empty", d.Stream(), what)
		}
	}
	return nil
}

func (h *Health) sane() bool {
	return within(h.WindowS, maxSeconds) && within(h.StartTimeoutS, maxSeconds) && within(h.MaxRSSMiB, maxMiB)
}

func within(n, limit int64) bool { return n >= 0 && n <= limit }

// Fits reports why a release cannot run beside what is there: the versions of the platform and of the same product's other half. A version that
// is zero is not there, and fulfils nothing.
func (d Description) Fits(osArch string, there map[string]Version) error {
	if !slices.Contains(d.Platforms, osArch) {
		return fmt.Errorf("%s %s is not for %s", d.Stream(), d.Version, osArch)
	}
	for what, c := range d.Requires {
		if v := there[what]; v.IsZero() || !c.Holds(v) {
			text := v.String()
			if v.IsZero() {
				text = "none"
			}
			return fmt.Errorf("%s %s requires %s %s, and there is %s", d.Stream(), d.Version, what, c, text)
		}
	}
	return nil
}

// Equal reports whether two descriptions say the same.
func (d Description) Equal(e Description) bool {
	a, aerr := json.Marshal(d)
	b, berr := json.Marshal(e)
	return aerr == nil && berr == nil && string(a) == string(b)
}
