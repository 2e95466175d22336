package command

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestRoot(t *testing.T) {
	var out bytes.Buffer
	started := false
	below := Group(&cobra.Command{Use: "below", Short: "Has commands"}, &cobra.Command{Use: "leaf", Short: "Does it", RunE: func(*cobra.Command, []string) error { return nil }})
	root := Root(&cobra.Command{Use: "program"}, nil, &out, &out, &started)
	root.AddCommand(below)
	for args, want := range map[string]string{"below leaf --wrong": "program below leaf --help", "nothing": "program --help"} {
		root.SetArgs(strings.Fields(args))
		if err := root.Execute(); err == nil || started || out.Len() > 0 {
			t.Errorf("%s: %v, started %v, said %q", args, err, started, &out)
		}
		if got := HelpFor(root, strings.Fields(args)); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	root.SetArgs([]string{"below"})
	if err := root.Execute(); err != nil || !started || !strings.Contains(out.String(), "leaf") {
		t.Errorf("%v, started %v, said %q", err, started, &out)
	}
}

func TestPrintJSON(t *testing.T) {
	var out bytes.Buffer
	if err := PrintJSON(&out, map[string]int{"a": 1}); err != nil || out.String() != "{\"a\":1}\n" {
		t.Errorf("%v, %q", err, &out)
	}
	if err := PrintJSON(&out, func() {}); err == nil {
		t.Error("a function is printed")
	}
}
