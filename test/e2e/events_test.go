package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bailey/test/rig"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestEventLinesValidate makes an event of every kind happen and holds each line that the command line prints against the
// committed schema.
func TestEventLinesValidate(t *testing.T) {
	a := startAgent(t, "")
	c := jsonschema.NewCompiler()
	schema, err := c.Compile("../../api/product/v1/event.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	events := exec.Command(filepath.Join(built, "bailey"), "events", "--json", "--for", "6s")
	events.Env = append(os.Environ(), "BAILEY_RUN="+a.Run)
	var lines, said bytes.Buffer
	events.Stdout, events.Stderr = &lines, &said
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	a.Install(rig.Spec{Name: "reader", Questions: "exec,open", Settings: map[string]string{"read": "true"}})
	p := a.Program("runs")
	if err := exec.Command(p, "with", "arguments").Run(); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(a.Scratch, "moved")
	for _, f := range []func() error{
		func() error { return os.Rename(p, moved) },
		func() error { return os.Chmod(moved, 0o700) },
		func() error { return os.Remove(moved) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	if err := events.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}

	seen := map[string]int{}
	for line := range strings.Lines(lines.String()) {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%v\nin %s", err, line)
		}
		var e struct{ Kind string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		seen[e.Kind]++
	}
	for _, kind := range []string{"exec", "fork", "exit", "create", "close_write", "rename", "unlink", "attrib", "verdict", "finding", "product"} {
		if seen[kind] == 0 {
			t.Errorf("no %s among the lines: %v", kind, seen)
		}
	}
}
