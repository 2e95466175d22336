package main

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bailey/update/trust"
	"bailey/update/updatetest"
)

// TestThreeVerbs drives the program as a suite does.
func TestThreeVerbs(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	r := updatetest.New(now)
	server := httptest.NewServer(&updatetest.Server{Repository: r})
	t.Cleanup(server.Close)
	dir, into := t.TempDir(), t.TempDir()
	root := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(root, r.RootFile(1), 0o600); err != nil {
		t.Fatal(err)
	}
	drive := func(at time.Time, verb ...string) error {
		return run(t.Context(), append([]string{
			"--metadata-dir", dir, "--metadata-url", server.URL + "/metadata", "--target-base-url", server.URL + "/targets/", "--target-dir", into,
			"--target-name", "acme/edr/content/1.0.tar.zst", "--time", at.Format(time.RFC3339),
		}, verb...), "", io.Discard)
	}
	if err := drive(now, "refresh"); err == nil {
		t.Error("it refreshes before init")
	}
	for _, verb := range [][]string{{"init", root}, {"refresh"}, {"download"}} {
		if err := drive(now, verb...); err != nil {
			t.Fatalf("%v: %v", verb, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(into, "acme%2Fedr%2Fcontent%2F1.0.tar.zst")); err != nil || string(text) != "acme one" {
		t.Errorf("%q, %v", text, err)
	}
	for _, role := range []string{"root", "timestamp", "snapshot", "targets", "acme--edr--content"} {
		if _, err := os.Stat(filepath.Join(dir, role+".json")); err != nil {
			t.Error(err)
		}
	}
	if err := drive(now.Add(48*time.Hour), "refresh"); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("two days later: %v", err)
	}
	// What only the house rules ask for is not asked for here.
	r.Bare = true
	r.Commit()
	if err := drive(now, "download"); err != nil {
		t.Errorf("a plain repository: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "root.json")); err != nil || !bytes.Equal(text, r.RootFile(1)) {
		t.Errorf("root.json: %v", err)
	}
	if err := drive(now, "install"); err == nil {
		t.Error("there is a fourth verb")
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ at, offset string }{{at: "tomorrow"}, {offset: "@tomorrow"}} {
		if _, err := (options{at: tc.at, offset: tc.offset}).clock(); err == nil {
			t.Errorf("%+v is a time", tc)
		}
	}
	now, err := options{offset: "-86400"}.clock()
	if err != nil {
		t.Fatal(err)
	}
	if ago := time.Since(now()); ago < 24*time.Hour || ago > 25*time.Hour {
		t.Errorf("%s ago", ago)
	}
}
