// Command conformance lets a conformance suite for The Update Framework drive this project's client by the three verbs that such suites
// speak: init, refresh and download. It is a test program: it asks for the specification and not for the house rules, and its clock is
// whatever --time says, or FAKETIME in the environment, as an offset in seconds: suites run clients under faketime, which a static program
// does not notice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bailey/internal/durable"
	"bailey/update/trust"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Getenv("FAKETIME"), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

// options are the suite's.
type options struct {
	dir, metadata, targets, target, into, at, offset string
}

func run(ctx context.Context, args []string, offset string, stderr io.Writer) error {
	o := options{offset: offset}
	set := flag.NewFlagSet("conformance", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&o.dir, "metadata-dir", "", "the client's metadata")
	set.StringVar(&o.metadata, "metadata-url", "", "the repository's metadata")
	set.StringVar(&o.targets, "target-base-url", "", "the repository's targets")
	set.StringVar(&o.target, "target-name", "", "path of the target to download")
	set.StringVar(&o.into, "target-dir", "", "directory for what is downloaded")
	set.StringVar(&o.at, "time", "", "the time to judge by, as 2006-01-02T15:04:05Z (default: now)")
	set.Int("max-root-rotations", 0, "taken and not used: the client has a limit of its own")
	if err := set.Parse(args); err != nil {
		return err
	}
	switch set.Arg(0) {
	case "init":
		return o.begin(set.Arg(1))
	case "refresh":
		return o.look(ctx, func(*trust.View) error { return nil })
	case "download":
		return o.look(ctx, func(v *trust.View) error { return o.download(ctx, v) })
	}
	return errors.New("usage: conformance --metadata-dir DIR [options] init ROOT | refresh | download")
}

// first is the root that init was given.
const first = "first"

// state is where the client's own directory is below the suite's.
func (o options) state() string { return filepath.Join(o.dir, "state") }

func (o options) begin(root string) error {
	text, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.state(), 0o755); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(o.state(), first), text, 0o644); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(o.dir, "root.json"), text, 0o644)
}

// clock returns what tells the time.
func (o options) clock() (func() time.Time, error) {
	switch {
	case o.at != "":
		at, err := time.Parse(time.RFC3339, o.at)
		return func() time.Time { return at }, err
	case o.offset != "":
		seconds, err := strconv.ParseInt(strings.TrimSuffix(o.offset, "s"), 10, 64)
		return func() time.Time { return time.Now().Add(time.Duration(seconds) * time.Second) }, err
	}
	return time.Now, nil
}

func (o options) look(ctx context.Context, then func(*trust.View) error) error {
	root, err := os.ReadFile(filepath.Join(o.state(), first))
	if err != nil {
		return err
	}
	now, err := o.clock()
	if err != nil {
		return err
	}
	cfg := trust.Config{
		Dir: o.state(), Root: root, Rules: trust.SpecificationOnly, Now: now,
		Mirrors: []trust.Mirror{{Metadata: strings.TrimSuffix(o.metadata, "/"), Targets: strings.TrimSuffix(o.targets, "/")}},
	}
	if o.targets == "" {
		cfg.Mirrors[0].Targets = cfg.Mirrors[0].Metadata
	}
	c, err := trust.New(cfg)
	if err != nil {
		return err
	}
	v, err := c.Refresh(ctx)
	if err == nil {
		err = then(v)
		v.Close()
	}
	return errors.Join(err, o.show())
}

func (o options) download(ctx context.Context, v *trust.View) error {
	t, err := v.Find(ctx, o.target)
	if err != nil {
		return err
	}
	path, err := v.Download(ctx, t, filepath.Join(o.state(), "downloads"))
	if err != nil {
		return err
	}
	return copyTo(path, filepath.Join(o.into, url.PathEscape(o.target)))
}

// show puts what the client trusts where the suite looks for it.
func (o options) show() error {
	roles, err := filepath.Glob(filepath.Join(o.state(), "roles", "*.json"))
	if err != nil {
		return err
	}
	for _, path := range roles {
		if err := copyTo(path, filepath.Join(o.dir, filepath.Base(path))); err != nil {
			return err
		}
	}
	newest := ""
	for n := 1; ; n++ {
		path := filepath.Join(o.state(), "roots", fmt.Sprintf("%d.json", n))
		if _, err := os.Stat(path); err == nil {
			newest = path
		} else if newest != "" {
			return copyTo(newest, filepath.Join(o.dir, "root.json"))
		} else if n > 1<<16 {
			return nil // nothing was verified
		}
	}
}

func copyTo(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return durable.Replace(to, text, 0o644)
}
