package buildinfo_test

import (
	"runtime"
	"testing"

	"bailey/internal/buildinfo"
)

func TestReadNamesThisToolchain(t *testing.T) {
	t.Parallel()
	got := buildinfo.Read()
	if got.Go != runtime.Version() || got.Platform != runtime.GOOS+"/"+runtime.GOARCH || got.Version == "" {
		t.Errorf("got %+v", got)
	}
}
