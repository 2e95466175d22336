package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	controlv1 "bailey/api/control/v1"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var update = flag.Bool("update", false, "write docs/cli.md")

// TestDocumentIsCurrent compares docs/cli.md with what the code says; -update writes it.
func TestDocumentIsCurrent(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "cli.md")
	got := document()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/cli.md is not what the code says; write it again with `go test ./internal/cli -update` (-file +code):\n%s", diff)
	}
}

// TestEveryCommandHasAnExample keeps --help useful.
func TestEveryCommandHasAnExample(t *testing.T) {
	t.Parallel()
	walk(documented(), func(c *cobra.Command) {
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example or no description", c.CommandPath())
		}
	})
}

func documented() *cobra.Command {
	a := &app{Process: Process{Getenv: func(string) string { return "" }}}
	return a.root()
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, child := range c.Commands() {
		walk(child, f)
	}
}

const intro = `# The command line

This page is written by ` + "`go test ./internal/cli -update`" + ` from the code itself; a test fails when it is not current.

One program, ` + "`bailey`" + `: the agent and everything that its operator needs on one machine. Commands talk to a running agent
through the socket ` + "`control.sock`" + ` in its run directory (` + "`--run`" + `, else ` + "`$BAILEY_RUN`" + `, else ` + "`/run/bailey`" + `). The same API is open
to any HTTP client that runs as root:

    curl --unix-socket /run/bailey/control.sock -H 'Content-Type: application/json' -d '{}' \
      http://bailey/bailey.control.v1.ControlService/Status

Results go to stdout, everything else to stderr. An error is one sentence with what to do about it. Colours are used on a
terminal only, and never when ` + "`NO_COLOR`" + ` is set. Names and arguments that come from programs are printed with their control
characters escaped.
`

const jsonIntro = `
## JSON

With ` + "`--json`" + ` a command prints one object on one line (` + "`events`" + `, ` + "`history`" + `, ` + "`journal show`" + `, ` + "`product logs`" + ` and ` + "`selftest`" + `: one a line for as long as they run). The names are
those of the schema in ` + "`api/control/v1/control.proto`" + ` and ` + "`api/product/v1/product.proto`" + `. As in every protobuf JSON, 64-bit numbers
are strings and bytes are base64. Objects of the control API show fields that are zero; events leave them out. Durations and times are
nanoseconds; a time is counted from boot (CLOCK_BOOTTIME) unless its comment in the schema says otherwise.

| command | object |
|---|---|
`

// results says what each command prints with --json.
var results = []struct {
	command string
	message proto.Message
}{
	{"status", &controlv1.StatusResponse{}},
	{"product install", &controlv1.ProductInstallResponse{}},
	{"product list", &controlv1.ProductListResponse{}},
	{"product show", &controlv1.ProductShowResponse{}},
	{"product start", &controlv1.ProductStartResponse{}},
	{"product stop", &controlv1.ProductStopResponse{}},
	{"product restart", &controlv1.ProductRestartResponse{}},
	{"product remove", &controlv1.ProductRemoveResponse{}},
	{"product grant", &controlv1.ProductGrantResponse{}},
	{"product revoke", &controlv1.ProductRevokeResponse{}},
	{"product set", &controlv1.ProductSetResponse{}},
	{"product logs", &controlv1.ProductLogsResponse{}},
	{"cache show", &controlv1.CacheShowResponse{}},
	{"cache clear", &controlv1.CacheClearResponse{}},
	{"brake list", &controlv1.BrakeListResponse{}},
	{"brake release", &controlv1.BrakeReleaseResponse{}},
	{"unlock", &controlv1.UnlockResponse{}},
	{"lock", &controlv1.LockResponse{}},
	{"rules", &controlv1.RuleListResponse{}},
	{"boot", &controlv1.Boot{}},
	{"boot good", &controlv1.BootGoodResponse{}},
}

func document() string {
	var b strings.Builder
	b.WriteString(intro)
	b.WriteString("\n## Exit codes\n\n| code | meaning |\n|---|---|\n")
	for code, meaning := range ExitCodes() {
		fmt.Fprintf(&b, "| %d | %s |\n", code, meaning)
	}
	b.WriteString("\n## Commands\n\n`bailey completion bash|zsh|fish` prints a completion script; it also completes the names of installed products.\n")
	walk(documented(), func(c *cobra.Command) {
		if c.Runnable() && (!c.HasSubCommands() || c.Name() == "agent") {
			describe(&b, c)
		}
	})
	b.WriteString(jsonIntro)
	b.WriteString("| `events` | `bailey.product.v1.Event`, see [the protocol](protocol.md) |\n")
	b.WriteString("| `history` | `bailey.product.v1.Event` |\n")
	b.WriteString("| `doctor` | `{ok, agent, checks: [{name, status, required, summary, remedy}]}` |\n")
	b.WriteString("| `selftest` | `{name, ok, detail, took}`, one a line |\n")
	b.WriteString("| `journal show` | `{seq, time, boot, boot_id, kind, fields, prev, hash}`, one a line, as in the file |\n")
	b.WriteString("| `journal verify` | `{dir, ok, segments, lines, bytes, first, since, complete, seq, head, time, torn: [{segment, bytes}], tail, faults: [{segment, line, what}], more}` |\n")
	b.WriteString("| `journal head` | `{seq, hash}` |\n")
	b.WriteString("| `operator keygen` | `{key, public, file}` |\n")
	b.WriteString("| `operator sign`, `operator show` | `{token, host, scopes, issued, not_before, expires, nonce, key, signature}` |\n")
	b.WriteString("| `operator host` | `{host}` |\n")
	b.WriteString("| `recover` | `{state, done, boot: {boot, began, good, ended, unclean, last_good, back: [{product, from, to}], suspects, safe, next, trying, downs}, problem, products: [{name, release, previous, enabled, problem}]}` |\n")
	b.WriteString("| `version` | `{version, revision, time, dirty, go, platform}` |\n")
	b.WriteString("| `agent --print-config` | the configuration, with the keys of its file |\n")
	seen := make(map[protoreflect.FullName]bool)
	var shapes strings.Builder
	for _, r := range results {
		d := r.message.ProtoReflect().Descriptor()
		fmt.Fprintf(&b, "| `%s` | `%s` |\n", r.command, shape(d))
		nested(&shapes, d, seen)
	}
	b.WriteString("\nwith\n\n| object | fields |\n|---|---|\n")
	b.WriteString(shapes.String())
	return b.String()
}

func describe(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n### %s\n\n%s.\n", strings.TrimPrefix(c.UseLine(), "bailey "), c.Short)
	sep := "\n"
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		fmt.Fprintf(b, "%s- `%s`: %s\n", sep, name, f.Usage)
		sep = ""
	})
	fmt.Fprintf(b, "\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimPrefix(c.Example, "  "), "\n  ", "\n"))
}

// shape writes a message's fields with their types.
func shape(d protoreflect.MessageDescriptor) string {
	var fields []string
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		fields = append(fields, string(f.Name())+": "+fieldType(f))
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

func fieldType(f protoreflect.FieldDescriptor) string {
	name := f.Kind().String()
	if f.Message() != nil {
		name = string(f.Message().Name())
	}
	switch {
	case f.IsMap():
		return fmt.Sprintf("{%s: %s}", f.MapKey().Kind(), f.MapValue().Kind())
	case f.IsList():
		return "[" + name + "]"
	}
	return name
}

// nested writes the messages that d's fields hold, each once.
func nested(b *strings.Builder, d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f.Message() == nil || f.IsMap() || seen[f.Message().FullName()] {
			continue
		}
		seen[f.Message().FullName()] = true
		fmt.Fprintf(b, "| %s | `%s` |\n", f.Message().Name(), shape(f.Message()))
		nested(b, f.Message(), seen)
	}
}
