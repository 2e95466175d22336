package rig

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"bailey/update/bundle"
	"bailey/update/publish"
	"bailey/update/release"
)

// VendorName is the vendor of all streams that a rig's vendor has.
const VendorName = "acme"

// Vendor offers releases as vendors do: bundles, signed into a repository that is made by the code that makes every repository, and handed out by
// a web server. Its keys are in memory.
type Vendor struct {
	T    *testing.T
	Dir  string // of the repository
	Root string // the file of its root
	URL  string
	Life publish.Life // of what is signed from now on

	keys    map[string]publish.Signer // by who holds them
	mirror  http.Handler
	instead atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

// memoryKey is a key without a file.
type memoryKey struct{ private ed25519.PrivateKey }

func (k memoryKey) Public() crypto.PublicKey { return k.private.Public() }

func (k memoryKey) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(k.private, message), nil
}

// Vendor is NewVendor beside the agent's own files.
func (a *Agent) Vendor(products ...string) *Vendor {
	a.T.Helper()
	return NewVendor(a.T, a.Dir, products...)
}

// NewVendor makes a repository below dir with the streams of code and content of products, and serves it. What has a vendor is one stream:
// "bailey/agent/code".
func NewVendor(t *testing.T, dir string, products ...string) *Vendor {
	t.Helper()
	v := &Vendor{T: t, Dir: filepath.Join(dir, "repository"), Root: filepath.Join(dir, "root.json"), keys: map[string]publish.Signer{}}
	all := publish.Setup{
		Root: v.holder("root"), Targets: v.holder("targets"), Snapshot: v.holder("snapshot"), Timestamp: v.holder("timestamp"), Policy: v.holder("policy"),
	}
	ours := v.holder("vendor")
	syscall.ForkLock.RLock() // as in Change
	root, err := publish.Init(context.Background(), publish.Config{Dir: v.Dir}, all, v.signers())
	syscall.ForkLock.RUnlock()
	if err == nil {
		err = os.WriteFile(v.Root, root, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	v.Change(func(r *publish.Repository) error {
		var err error
		for _, p := range products {
			if strings.Contains(p, "/") {
				id, perr := release.ParseStream(p)
				err = errors.Join(err, perr, r.AddVendor(context.Background(), id, ours, v.signers()))
				continue
			}
			for _, k := range []release.Kind{release.Code, release.Content} {
				err = errors.Join(err, r.AddVendor(context.Background(), release.Stream{Vendor: VendorName, Product: p, Kind: k}, ours, v.signers()))
			}
		}
		return err
	})
	v.mirror = http.FileServerFS(os.DirFS(v.Dir)) // any web server will do
	server := httptest.NewServer(v)
	t.Cleanup(server.Close)
	v.URL = server.URL
	return v
}

// holder makes a key for somebody.
func (v *Vendor) holder(name string) publish.Holders {
	v.T.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		v.T.Fatal(err)
	}
	v.keys[name] = memoryKey{private}
	public, err := publish.PublicOf(private.Public())
	if err != nil {
		v.T.Fatal(err)
	}
	return publish.Holders{Keys: []publish.Public{public}, Threshold: 1}
}

func (v *Vendor) signers() []publish.Signer {
	var out []publish.Signer
	for _, s := range v.keys {
		out = append(out, s)
	}
	return out
}

// whole is a stream with its vendor.
func whole(stream string) string {
	if strings.Count(stream, "/") == 2 {
		return stream
	}
	return VendorName + "/" + stream
}

// Config is the agent's configuration that has it follow streams of this vendor, each "PRODUCT/KIND"; keys are further lines of [update].
func (v *Vendor) Config(keys string, streams ...string) string {
	var list []string
	for _, s := range streams {
		list = append(list, fmt.Sprintf("%q", whole(s)))
	}
	return fmt.Sprintf("[update]\nmirrors = [%q]\nroot = %q\nstreams = [%s]\ninterval = \"1h\"\n%s\n", v.URL, v.Root, strings.Join(list, ", "), keys)
}

// ServeHTTP answers a request for a file, or whatever Instead does.
func (v *Vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := v.instead.Load(); f != nil && (*f)(w, r) {
		return
	}
	v.mirror.ServeHTTP(w, r)
}

// Instead has f answer requests; what it does not answer it says so of. Nil: the mirror is sound again.
func (v *Vendor) Instead(f func(http.ResponseWriter, *http.Request) bool) {
	if f == nil {
		v.instead.Store(nil)
		return
	}
	v.instead.Store(&f)
}

// Change changes the repository and announces that. A test that runs beside this one must not fork meanwhile: its child would have the lock.
func (v *Vendor) Change(how func(*publish.Repository) error) {
	v.T.Helper()
	root, err := os.ReadFile(v.Root)
	if err != nil {
		v.T.Fatal(err)
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	r, err := publish.Open(publish.Config{Dir: v.Dir, Root: root, Life: v.Life})
	if err != nil {
		v.T.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(how(r), r.Announce(context.Background(), v.signers())); err != nil {
		v.T.Fatal(err)
	}
}

// Publish offers the files of a folder as a release of "PRODUCT/KIND"; edit may change what it says of itself.
func (v *Vendor) Publish(stream, version, folder string, edit ...func(*release.Description)) {
	v.T.Helper()
	id, err := release.ParseStream(whole(stream))
	if err != nil {
		v.T.Fatal(err)
	}
	number, err := release.ParseVersion(version)
	if err != nil {
		v.T.Fatal(err)
	}
	d := release.Description{
		Schema: release.Schema, Vendor: id.Vendor, Product: id.Product, Kind: id.Kind, Version: number, Epoch: 1, Platforms: []string{"linux/amd64", "linux/arm64"}, Urgency: release.Routine,
	}
	for _, f := range edit {
		f(&d)
	}
	file, err := os.CreateTemp(filepath.Dir(v.Root), "bundle-")
	if err != nil {
		v.T.Fatal(err)
	}
	_, err = bundle.Pack(file, folder, d, bundle.Limits{})
	if err = errors.Join(err, file.Close()); err != nil {
		v.T.Fatal(err)
	}
	v.Change(func(r *publish.Repository) error {
		_, err := r.Release(context.Background(), file.Name(), v.signers())
		return err
	})
}

// Disable has the recovery policy disable a release of "PRODUCT/KIND".
func (v *Vendor) Disable(stream, version, reason string) {
	v.T.Helper()
	id, err := release.ParseStream(VendorName + "/" + stream)
	if err != nil {
		v.T.Fatal(err)
	}
	number, err := release.ParseVersion(version)
	if err != nil {
		v.T.Fatal(err)
	}
	v.Change(func(r *publish.Repository) error {
		p, err := r.Policy()
		if err != nil {
			return err
		}
		p.Disabled = append(p.Disabled, release.Disabled{Vendor: id.Vendor, Product: id.Product, Kind: id.Kind, Version: number, Reason: reason})
		return r.SetPolicy(context.Background(), p, v.signers())
	})
}

// Content offers a content.txt as content of a product.
func (v *Vendor) Content(product, version, text string, edit ...func(*release.Description)) {
	v.T.Helper()
	folder, err := os.MkdirTemp(filepath.Dir(v.Root), "content-")
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "content.txt"), []byte(text), 0o644)
	}
	if err != nil {
		v.T.Fatal(err)
	}
	v.Publish(product+"/content", version, folder, edit...)
}
