package fleetcli

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func every(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, child := range c.Commands() {
		every(child, f)
	}
}

// TestEveryCommandHasAnExample keeps --help useful.
func TestEveryCommandHasAnExample(t *testing.T) {
	t.Parallel()
	every((&app{}).root(), func(c *cobra.Command) {
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example or no description", c.CommandPath())
		}
		for _, line := range strings.Split(c.Example, "\n") {
			if !strings.HasPrefix(strings.TrimSpace(line), "bailey-fleet ") {
				t.Errorf("%s: %q is no example", c.CommandPath(), line)
			}
		}
	})
}

// TestDocumentNamesEveryCommand: docs/updates.md is written by hand, and complete.
func TestDocumentNamesEveryCommand(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "updates.md"))
	if err != nil {
		t.Fatal(err)
	}
	every((&app{}).root(), func(c *cobra.Command) {
		if path := c.CommandPath(); c.Runnable() && !c.HasSubCommands() && !strings.Contains(string(text), path) {
			t.Errorf("docs/updates.md does not mention %s", path)
		}
	})
}

// TestServe: a repository is served until the command is told to end.
func TestServe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "metadata"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "metadata", "timestamp.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	said, says := io.Pipe()
	a := &app{Process: Process{Stderr: says, Stdout: io.Discard}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.listen(ctx, dir, "127.0.0.1:0") }()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ := strings.Cut(strings.TrimSpace(line), " at ")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metadata/timestamp.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil || string(text) != "{}" || resp.Header.Get("ETag") == "" {
		t.Errorf("%q, %v, %v", text, err, resp.Header)
	}
	_ = resp.Body.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
