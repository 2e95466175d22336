package updatetest_test

import (
	"context"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"bailey/update/release"
	"bailey/update/trust"
	"bailey/update/updatetest"

	"github.com/google/go-cmp/cmp"
)

// start is when these tests happen.
var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// stand is a repository, its server, and a client with a clock.
type stand struct {
	*updatetest.Repository
	server *updatetest.Server
	url    string
	now    time.Time
	config trust.Config
	client *trust.Client
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{Repository: updatetest.New(start), now: start}
	s.server = &updatetest.Server{Repository: s.Repository}
	h := httptest.NewServer(s.server)
	t.Cleanup(h.Close)
	s.url = h.URL
	s.config = trust.Config{
		Dir: t.TempDir(), Root: s.RootFile(1), Mirrors: []trust.Mirror{trust.At(h.URL)}, Now: func() time.Time { return s.now },
		Pace: trust.Pace{Window: time.Second, Bytes: 1 << 10, Small: 2 * time.Second},
	}
	s.restart(t)
	return s
}

// restart makes a client with nothing but its directory.
func (s *stand) restart(t *testing.T) {
	t.Helper()
	var err error
	if s.client, err = trust.New(s.config); err != nil {
		t.Fatal(err)
	}
}

// newest looks, fetches the newest release of a stream and returns its text.
func (s *stand) newest(stream release.Stream) (string, error) {
	v, err := s.client.Refresh(context.Background())
	if err != nil {
		return "", err
	}
	defer v.Close()
	offers, unusable, err := v.Offers(context.Background(), stream)
	if err != nil {
		return "", err
	}
	if len(offers) == 0 {
		if len(unusable) > 0 {
			return "", &trust.Refusal{What: unusable[0].Path, Class: trust.ErrMalformed, Reason: unusable[0].Reason}
		}
		return "", trust.ErrNotFound
	}
	path, err := v.Download(context.Background(), offers[0].Target, s.config.Dir+"/downloads")
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

func (s *stand) want(t *testing.T, stream release.Stream, text string) {
	t.Helper()
	if got, err := s.newest(stream); err != nil || got != text {
		t.Fatalf("%s: %q, %v; want %q", stream, got, err, text)
	}
}

func TestFollowsARepository(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.want(t, updatetest.Acme(), "acme one")
	s.server.Seen()
	s.want(t, updatetest.Acme(), "acme one")
	if diff := cmp.Diff([]string{"Not Modified /metadata/timestamp.json"}, s.server.Seen()); diff != "" {
		t.Errorf("a look without news (-want +got):\n%s", diff)
	}
	s.Release(updatetest.Acme(), "1.1", []byte("acme two"))
	s.Commit()
	s.want(t, updatetest.Acme(), "acme two")
	s.restart(t)
	s.want(t, updatetest.Acme(), "acme two")
	s.want(t, updatetest.Globex(), "globex one")
	if strings.Join(s.server.Seen(), " ") == "" {
		t.Error("nothing was asked for")
	}
}
