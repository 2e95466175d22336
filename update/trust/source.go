package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// source gives the files of one tree of a repository. It is safe for concurrent use.
type source interface {
	// open begins to read name, from an offset if it can; where it begins is in the answer. With a tag of an earlier answer it may say that
	// nothing changed. What is not there is ErrNotFound, whatever else fails is ErrUnavailable.
	open(ctx context.Context, name string, from int64, tag string) (*answer, error)
}

// answer is a file on its way.
type answer struct {
	body io.ReadCloser
	from int64  // offset of the first byte of body
	tag  string // for the next time; may be empty
	same bool   // the tag still holds, and there is no body
}

// newSource makes the source for a URL: file:///dir, http://… or https://….
func newSource(base string, t http.RoundTripper) (source, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("read the mirror %.200q: %w", base, err)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return nil, fmt.Errorf("the mirror %.200q is no file:///directory", base)
		}
		return fileSource{dir: u.Path}, nil
	case "http", "https":
		if u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("the mirror %.200q has no host, or more than a path", base)
		}
		return &httpSource{base: u, client: &http.Client{Transport: t, CheckRedirect: redirect}}, nil
	}
	return nil, fmt.Errorf("the mirror %.200q begins with none of file, http and https", base)
}

// redirect follows three times, and never from an encrypted connection to a plain one.
func redirect(r *http.Request, via []*http.Request) error {
	if len(via) > 3 || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return fmt.Errorf("not redirected to %.200s", r.URL)
	}
	return nil
}

// Transport returns what HTTP goes through unless Config says otherwise: the proxies of the environment, and no patience with a server that
// does not speak. Nothing is decompressed: what was signed is what is sent.
func Transport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConnsPerHost:    2,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}

// httpSource is a tree on a web server.
type httpSource struct {
	base   *url.URL
	client *http.Client
}

var _ source = (*httpSource)(nil)

func (s *httpSource) open(ctx context.Context, name string, from int64, tag string) (*answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base.JoinPath(strings.Split(name, "/")...).String(), nil)
	if err != nil {
		return nil, refuse(name, ErrUnavailable, "%v", err)
	}
	r.Header.Set("Accept-Encoding", "identity")
	if from > 0 {
		r.Header.Set("Range", "bytes="+strconv.FormatInt(from, 10)+"-")
	}
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, refuse(name, failed(ctx, err), "%v", errors.Join(err, context.Cause(ctx)))
	}
	a := &answer{body: resp.Body, tag: resp.Header.Get("ETag")}
	switch {
	case resp.StatusCode == http.StatusOK:
		return a, nil
	case resp.StatusCode == http.StatusPartialContent && from > 0 && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)):
		a.from = from
		return a, nil
	}
	_ = resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && tag != "":
		return &answer{same: true, tag: tag}, nil
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && from > 0:
		return s.open(ctx, name, 0, "")
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone, resp.StatusCode == http.StatusForbidden:
		// Object stores say forbidden where nothing is.
		return nil, refuse(name, ErrNotFound, "the server says %d", resp.StatusCode)
	}
	return nil, &Refusal{What: name, Class: ErrUnavailable, Reason: fmt.Sprintf("the server says %d", resp.StatusCode), after: retryAfter(resp.Header)}
}

// failed tells a transfer that was too slow from one that broke.
func failed(ctx context.Context, err error) error {
	var timeout net.Error
	if errors.Is(context.Cause(ctx), ErrSlow) || errors.As(err, &timeout) && timeout.Timeout() {
		return ErrSlow
	}
	return ErrUnavailable
}

// fileSource is a tree in a directory: a stick, a share, a copy.
type fileSource struct{ dir string }

var _ source = fileSource{}

func (s fileSource) open(_ context.Context, name string, from int64, _ string) (*answer, error) {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, refuse(name, ErrUnavailable, "%v", err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would be waited for
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(name, ErrNotFound, "%v", err)
	}
	if err != nil {
		return nil, refuse(name, ErrUnavailable, "%v", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err == nil && from > info.Size() {
		from = 0
	}
	if err == nil {
		_, err = f.Seek(from, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, refuse(name, ErrUnavailable, "%v", err)
	}
	return &answer{body: f, from: from}, nil
}
