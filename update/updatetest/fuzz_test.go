package updatetest_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"bailey/update/release"
	"bailey/update/trust"
	"bailey/update/updatetest"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// inMemory answers requests from a repository without a network.
type inMemory struct{ files map[string][]byte }

func (m *inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	text, found := m.files[strings.TrimPrefix(r.URL.Path, "/")]
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(text)), Request: r}
	if !found {
		resp.StatusCode = http.StatusNotFound
	}
	return resp, nil
}

// machine follows a repository in memory.
func machine(t testing.TB, r *updatetest.Repository, root []byte) *trust.Client {
	t.Helper()
	c, err := trust.New(trust.Config{
		Dir: t.TempDir(), Root: root, Mirrors: []trust.Mirror{trust.At("http://mirror")}, Now: func() time.Time { return start }, Transport: &inMemory{r.Files},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sound fails if anything else than a refusal or what is true comes out of a look.
func sound(t *testing.T, c *trust.Client) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		var r *trust.Refusal
		if errors.Is(err, trust.ErrInternal) || !errors.As(err, &r) {
			t.Fatal(err)
		}
	}
	v, err := c.Refresh(t.Context())
	if err != nil {
		check(err)
		return
	}
	defer v.Close()
	for _, s := range []release.Stream{acme, globex} {
		offers, _, err := v.Offers(t.Context(), s)
		if err != nil {
			check(err)
		}
		for _, o := range offers {
			if o.Role != s.Role() || !strings.HasPrefix(o.Path, s.String()+"/") || o.Release.Stream() != s {
				t.Fatalf("%s offers %+v", s, o)
			}
		}
		if s == globex && len(offers) > 0 && offers[0].Path != globexPath {
			t.Fatalf("globex offers %+v", offers)
		}
	}
	if _, err := v.Plan(t.Context(), acme, globex); err != nil {
		check(err)
	}
}

// FuzzVendor: a vendor signs anything, and the platform publishes it unread. The client never falls over, and the vendor says nothing for others.
func FuzzVendor(f *testing.F) {
	r := updatetest.New(start)
	root := r.RootFile(1)
	f.Add(r.Files["metadata/1."+acme.Role()+".json"])
	for _, name := range []string{"null_target", "null_key", "short_key", "delegates", "duplicate", "float"} {
		s := &stand{Repository: updatetest.New(start)}
		attacks[name].do(s)
		f.Add(s.Files["metadata/2."+acme.Role()+".json"])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := updatetest.New(start)
		r.Put(acme.Role(), 2, updatetest.Resigned(text, r.Keys[acme.Role()]...))
		r.CommitSnapshot()
		r.CommitTimestamp()
		sound(t, machine(t, r, root))
	})
}

// FuzzMirror: a mirror, or who has stolen the keys of timestamp and snapshot too, serves anything in place of one file.
func FuzzMirror(f *testing.F) {
	r := updatetest.New(start)
	root := r.RootFile(1)
	for _, name := range []string{"1.root", "timestamp", "1.snapshot", "1.targets"} {
		f.Add(name, r.Files["metadata/"+name+".json"])
	}
	f.Add("2.root", r.Files["metadata/1.root.json"])
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		r := updatetest.New(start)
		switch strings.TrimLeft(name, "0123456789.") {
		case metadata.TIMESTAMP, metadata.SNAPSHOT:
			text = updatetest.Resigned(text, r.Keys[metadata.TIMESTAMP][0], r.Keys[metadata.SNAPSHOT][0])
		}
		r.Files["metadata/"+name+".json"] = text
		sound(t, machine(t, r, root))
	})
}
