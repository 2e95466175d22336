package main

import (
	"testing"

	"bailey/sdk"
	"bailey/sdk/sdktest"
)

func TestHello(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{false, true} {
		a := sdktest.NewWith(t, hello(), sdktest.Options{Stream: stream})
		if got := a.Ask(sdk.Exec, nil, "/bin/sh"); got != sdk.Allow.CacheFile() {
			t.Errorf("/bin/sh: %v", got)
		}
		got := a.AskQuestion(sdktest.Question{Kind: sdk.Exec, Path: "/bin/sh", File: &sdk.File{Path: "/tmp/x"}})
		if !got.Denied() {
			t.Errorf("/tmp/x: %v", got)
		}
		f := a.Findings()
		if len(f) != 1 || f[0].QuestionID != 2 || f[0].File.GetPath() != "/tmp/x" {
			t.Errorf("findings: %+v", f)
		}
		a.Emit(&sdk.Event{Kind: sdk.Exec, Process: &sdk.Process{Executable: &sdk.File{Path: "/bin/ls"}}})
	}
}
