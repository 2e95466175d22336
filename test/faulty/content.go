package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"bailey/sdk"
)

// contentFiles are where the product's content may be, the first that is there counts: brought by an update, or with the product.
// It is rules, one on a line, the word before the first space being the kind.
//
//	instance V1,V2,…        a template instance: one value for each field of the event, "*" matches all
//	feature NAME            one entry of a table that has room for 200
//	pattern TEXT            deny files that contain TEXT
//	prefix PATH             deny files below PATH
//	sha256 HEX              deny files with this digest
//	asker PATH              deny what this program executes
//	default deny            deny what no allow line names
//	allow PATH              with default deny: allow what lies below PATH
//	check load              match all instances once when they are loaded
//
// The engine has the faults of the engines it stands for: the schema of an instance has more fields than the sensor fills
// in, and the table of features does not grow.
var contentFiles = []string{"content/content.txt", "content.txt"}

const (
	sensorFields = 20 // that an event really has; instances are written for one more
	featureRoom  = 200
)

type content struct {
	instances          [][]string
	features           []string
	patterns, prefixes []string
	sums, askers       map[string]bool
	defaultDeny        bool
	allows             []string
}

// loadContent reads the content; without a file there is none.
func loadContent() (*content, error) {
	var text []byte
	var err error
	for _, name := range contentFiles {
		if text, err = os.ReadFile(name); !os.IsNotExist(err) {
			break
		}
	}
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	c := &content{features: make([]string, 0, featureRoom), sums: map[string]bool{}, askers: map[string]bool{}}
	check := false
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "instance":
			c.instances = append(c.instances, strings.Split(rest, ","))
		case "feature":
			c.feature(rest)
		case "pattern":
			c.patterns = append(c.patterns, rest)
		case "prefix":
			c.prefixes = append(c.prefixes, rest)
		case "sha256":
			c.sums[rest] = true
		case "asker":
			c.askers[rest] = true
		case "default":
			c.defaultDeny = rest == "deny"
		case "allow":
			c.allows = append(c.allows, rest)
		case "check":
			check = rest == "load"
		}
	}
	if check {
		c.matchInstances(event("", "open"))
	}
	return c, nil
}

// feature adds an entry as the proxy of November 2025 did: what does not fit is not an error that anybody handles.
func (c *content) feature(name string) {
	n := len(c.features)
	c.features = c.features[: n+1 : featureRoom] // panics at the 201st
	c.features[n] = name
}

// event is what the sensor fills in: one field fewer than the instances have.
func event(path, kind string) []string {
	e := make([]string, sensorFields)
	e[0], e[1] = path, kind
	return e
}

// matchInstances compares each field of each instance that is no wildcard with the event's. The 21st is behind its end.
func (c *content) matchInstances(e []string) bool {
	for _, fields := range c.instances {
		matched := true
		for i, want := range fields {
			if want == "*" {
				continue
			}
			matched = matched && e[i] == want
		}
		if matched {
			return true
		}
	}
	return false
}

// denies judges one file.
func (c *content) denies(q *sdk.Question) bool {
	if c == nil {
		return false
	}
	path := q.GetFile().GetPath()
	if c.matchInstances(event(path, q.GetKind().String())) {
		return true
	}
	for _, p := range c.prefixes {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	if len(c.patterns) > 0 {
		text := head(q, 1<<20)
		for _, p := range c.patterns {
			if strings.Contains(text, p) {
				return true
			}
		}
	}
	if c.askers[q.GetProcess().GetExecutable().GetPath()] {
		return true
	}
	if len(c.sums) > 0 && c.sums[digest(q)] {
		return true
	}
	return c.defaultDeny && !c.allowed(path)
}

func (c *content) allowed(path string) bool {
	for _, p := range c.allows {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

func digest(q *sdk.Question) string {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(q.Reader(), 0, 1<<30)); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
