package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// updateStream is what `bailey update show` says, as far as it matters here.
type updateStream struct {
	Installed string `json:"installed"`
	Frozen    string `json:"frozen"`
	Waiting   string `json:"waiting"`
	Problem   string `json:"problem"`
	Offers    []offer
	Update    struct {
		Version string `json:"version"`
		State   string `json:"state"`
		Reason  string `json:"reason"`

		Rehearsal struct {
			Critical, Recorded, Answered, Unasked int
			CPU                                   string
		} `json:"rehearsal"`
	} `json:"update"`
}

// offer is a release that is to be had, and why it is not tried again.
type offer struct{ Version, Bad string }

// unsettled are the states in which a release is neither in force for good nor out of it.
var unsettled = []string{"promote", "watch", "roll_back"}

// product is what `bailey product show` says.
type product struct {
	Product struct {
		State   string `json:"state"`
		Reason  string `json:"reason"`
		Release string `json:"release"`
		Folder  string `json:"folder"`
	} `json:"product"`
}

// content is what the first line of a content.txt says of itself.
type content struct {
	version, kind string // good, bad or late
}

func contentOf(folder string) (content, error) {
	text, err := os.ReadFile(filepath.Join(folder, "content/content.txt"))
	if errors.Is(err, os.ErrNotExist) {
		text, err = os.ReadFile(filepath.Join(folder, "content.txt"))
	}
	var c content
	if err == nil {
		_, err = fmt.Sscanf(string(text), "release %s %s\n", &c.version, &c.kind)
	}
	if err != nil {
		return c, fmt.Errorf("what is in force: %w", err)
	}
	return c, nil
}

// check is whether the machine is in order: the very first time it is installed.
func (m *machine) check() error {
	if err := m.installed(); err != nil {
		return err
	}
	var first content
	err := eventually("a good release runs", func() (err error) {
		first, err = runsGood()
		return err
	})
	if err != nil {
		return err
	}
	var s updateStream
	var now content
	err = eventually("the update's record says what is in force", func() error {
		s, now, err = agreed()
		return err
	})
	if err != nil {
		return err
	}
	if err := intact(); err != nil {
		return err
	}
	if err := healthy(); err != nil {
		return err
	}
	var b struct {
		Unclean int   `json:"unclean"`
		Back    []any `json:"back"`
	}
	if err := ask(&b, "boot"); err != nil {
		return err
	}
	fmt.Printf("CUT-CHECKED step %d, found %s, in force %s, update %s %s, unclean %d, back %d\n", m.step, first.version, now.version, s.Update.Version, s.Update.State, b.Unclean, len(b.Back))
	return nil
}

// installed installs the product if no boot did, and waits until the boot is good with it: from then on it is known what is new.
func (m *machine) installed() error {
	if _, err := os.Stat(data + "/installed"); err == nil {
		return nil
	}
	if _, err := bailey("product", "install", here+"/product", "--yes"); err != nil {
		return err
	}
	err := eventually("the boot is good", func() error {
		var b struct {
			LastGood map[string]string `json:"last_good"`
		}
		if err := ask(&b, "boot"); err != nil {
			return err
		}
		if b.LastGood["engine"] == "" {
			return errors.New("it is not yet")
		}
		return nil
	})
	if err != nil {
		return err
	}
	f, err := os.Create(data + "/installed")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// runsGood is nil when the product runs with a release that does no harm.
func runsGood() (content, error) {
	var p product
	if err := ask(&p, "product", "show", "engine"); err != nil {
		return content{}, err
	}
	c, err := contentOf(p.Product.Folder)
	switch {
	case err != nil:
		return c, err
	case p.Product.State != "running":
		return c, fmt.Errorf("it is %s: %s", p.Product.State, p.Product.Reason)
	case c.kind != "good":
		return c, fmt.Errorf("release %s is in force, which is %s", c.version, c.kind)
	}
	return c, nil
}

// agreed is nil when the update's record and the product say the same is in force.
func agreed() (s updateStream, c content, err error) {
	var after updateStream
	if err = ask(&s, "update", "show", stream); err != nil {
		return s, c, err
	}
	if c, err = runsGood(); err != nil {
		return s, c, err
	}
	if err = ask(&after, "update", "show", stream); err != nil {
		return s, c, err
	}
	version := s.Installed
	if version == "" { // nothing came in yet
		version = "0"
	}
	switch {
	case s.Problem != "":
		return s, c, errors.New(s.Problem)
	case slices.Contains(unsettled, s.Update.State) || s.Update != after.Update || s.Installed != after.Installed:
		return s, c, fmt.Errorf("it is on its way: %+v", s)
	case version != c.version:
		return s, c, fmt.Errorf("the record says %s, and in force is %s: %+v", version, c.version, s)
	}
	return s, c, nil
}

// intact is nil when record and folders of the product are whole.
func intact() error {
	dir := state + "/products/engine"
	text, err := os.ReadFile(dir + "/record.json")
	if err != nil {
		return err
	}
	var r struct{ Release, Previous string }
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("the product's record: %w", err)
	}
	for _, release := range []string{r.Release, r.Previous} {
		if release == "" {
			continue
		}
		folder := filepath.Join(dir, "releases", release)
		if _, err := contentOf(folder); err != nil {
			return err
		}
		for _, name := range []string{"faulty", "manifest.toml"} {
			want, err := os.ReadFile(filepath.Join(here, "product", name))
			got, gerr := os.ReadFile(filepath.Join(folder, name))
			if err := errors.Join(err, gerr); err != nil {
				return err
			}
			if !bytes.Equal(got, want) {
				return fmt.Errorf("%s of %s is damaged: %d bytes, not %d", name, release, len(got), len(want))
			}
		}
	}
	return nil
}

// healthy is nil when the journal is whole and no part of the agent has failed.
func healthy() error {
	if _, err := bailey("journal", "verify", "--state", state); err != nil {
		return err
	}
	var s struct {
		Health []struct{ Component, Status, Summary string } `json:"health"`
	}
	if err := ask(&s, "status"); err != nil {
		return err
	}
	for _, h := range s.Health {
		if h.Status == "failed" && !strings.HasPrefix(h.Component, "sensor.") {
			return fmt.Errorf("%s has failed: %s", h.Component, h.Summary)
		}
	}
	return nil
}
