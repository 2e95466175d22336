package release

import (
	"fmt"
	"regexp"
	"strings"
)

// Kind says which of the two things of a product a release is.
type Kind string

// The kinds: code changes rarely and is signed with care, content changes many times a day.
const (
	Code    Kind = "code"
	Content Kind = "content"
)

// Stream is a sequence of releases: one product's code, or its content. Each has a role, and so keys, of its own.
type Stream struct {
	Vendor  string
	Product string
	Kind    Kind
}

// name is a vendor or a product. Two hyphens in a row separate names in a role, so they occur in none.
var name = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

const maxName = 32

// Agent is the name that releases of the agent itself have as a product. Its vendor is AgentVendor, and there is code alone.
const (
	Agent       = "agent"
	AgentVendor = "bailey"
)

// reserved are the names that paths and roles have for other things.
var reserved = map[string]bool{"policy": true, "root": true, "targets": true, "snapshot": true, "timestamp": true}

// Check reports what is wrong with the stream's names.
func (s Stream) Check() error {
	for what, n := range map[string]string{"vendor": s.Vendor, "product": s.Product} {
		if len(n) > maxName || !name.MatchString(n) {
			return fmt.Errorf("%.40q is no name of a %s: up to %d lower-case letters and digits, words separated by single hyphens", n, what, maxName)
		}
	}
	if reserved[s.Vendor] {
		return fmt.Errorf("no vendor can be called %s", s.Vendor)
	}
	if s.Product == Agent && s.Vendor != AgentVendor {
		return fmt.Errorf("no product of %s can be called %s: that is %s's own agent", s.Vendor, Agent, AgentVendor)
	}
	if s.Product == Agent && s.Kind == Content {
		return fmt.Errorf("the agent has no %s", Content)
	}
	if s.Kind != Code && s.Kind != Content {
		return fmt.Errorf("%.40q is no kind: it is code or content", string(s.Kind))
	}
	return nil
}

// String returns the stream as operators write it.
func (s Stream) String() string { return s.Vendor + "/" + s.Product + "/" + string(s.Kind) }

// ParseStream reads what String writes.
func ParseStream(text string) (Stream, error) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return Stream{}, fmt.Errorf("%.120q is no stream: it is VENDOR/PRODUCT/code or VENDOR/PRODUCT/content", text)
	}
	s := Stream{Vendor: parts[0], Product: parts[1], Kind: Kind(parts[2])}
	return s, s.Check()
}

// Role returns the name of the role that signs for the stream.
func (s Stream) Role() string { return s.Vendor + "--" + s.Product + "--" + string(s.Kind) }

// ParseRole reads what Role writes.
func ParseRole(role string) (Stream, error) {
	s, err := ParseStream(strings.ReplaceAll(role, "--", "/"))
	if err != nil || s.Role() != role {
		return Stream{}, fmt.Errorf("%.120q is the role of no stream", role)
	}
	return s, nil
}

// Pattern returns the only pattern of paths that the stream's role may sign.
func (s Stream) Pattern() string { return s.String() + "/*" }

// PolicyRole signs the recovery policy, and PolicyPath is the only path that it may sign.
const (
	PolicyRole = "policy"
	PolicyPath = "policy/recovery.json"
)

// Suffix ends the name of every bundle.
const Suffix = ".tar.zst"

// Path returns where a bundle of the stream is in the repository. Platform is empty for a bundle that serves all of its platforms.
func (s Stream) Path(v Version, platform string) string {
	file := v.String()
	if platform != "" {
		file += "_" + strings.ReplaceAll(platform, "/", "-")
	}
	return s.String() + "/" + file + Suffix
}

// ParsePath takes apart what Path put together. The platform comes with a hyphen in place of its slash.
func ParsePath(path string) (s Stream, v Version, platform string, err error) {
	fail := func(err error) (Stream, Version, string, error) {
		return Stream{}, Version{}, "", fmt.Errorf("%.200q is the path of no bundle: %w", path, err)
	}
	cut := strings.LastIndexByte(path, '/')
	if cut < 0 {
		return fail(fmt.Errorf("it has no directory"))
	}
	if s, err = ParseStream(path[:cut]); err != nil {
		return fail(err)
	}
	file, found := strings.CutSuffix(path[cut+1:], Suffix)
	if !found {
		return fail(fmt.Errorf("it does not end in %s", Suffix))
	}
	file, platform, found = strings.Cut(file, "_")
	if found && !platformFile.MatchString(platform) {
		return fail(fmt.Errorf("%.40q is no platform", platform))
	}
	if v, err = ParseVersion(file); err != nil {
		return fail(err)
	}
	return s, v, platform, nil
}

// DeltaSuffix ends the name of every delta.
const DeltaSuffix = ".delta"

// DeltaPath returns where the delta is that makes the bundle at a path out of an older version's.
func DeltaPath(bundle string, base Version) string {
	return strings.TrimSuffix(bundle, Suffix) + "~" + base.String() + DeltaSuffix
}

// ParseDeltaPath takes apart what DeltaPath put together.
func ParseDeltaPath(path string) (bundle string, base Version, err error) {
	rest, found := strings.CutSuffix(path, DeltaSuffix)
	bundle, from, tilde := strings.Cut(rest, "~")
	if !found || !tilde {
		return "", Version{}, fmt.Errorf("%.200q is the path of no delta", path)
	}
	bundle += Suffix
	_, v, _, err := ParsePath(bundle)
	if err != nil {
		return "", Version{}, err
	}
	if base, err = ParseVersion(from); err != nil {
		return "", Version{}, err
	}
	if base.Compare(v) == 0 {
		return "", Version{}, fmt.Errorf("%.200q is the path of a delta from nothing to nothing", path)
	}
	return bundle, base, nil
}
