package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"bailey/agent/product"
	"bailey/agent/product/contain"
	"bailey/update/client"
	"bailey/update/fetch"
	"bailey/update/trust"

	"golang.org/x/sys/unix"
)

// FetchWord is the argument with which this program is the process that looks at mirrors and downloads, in a containment. RunFetch is what it does
// then.
const FetchWord = "fetch-updates"

const (
	fetchDir    = "fetch"       // below updateDir
	fetchMemory = 192 << 20     // bytes
	fetchFile   = 1<<30 + 1<<20 // the largest bundle that there can be
)

// RunFetch serves the agent that started this process.
func RunFetch() error {
	f := os.NewFile(contain.SocketFD, "agent")
	if f == nil {
		return errors.New("this command is started by the agent only")
	}
	conn, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("this command is started by the agent only: %w", err)
	}
	return fetch.Serve(context.Background(), conn, contain.StateDir)
}

// forNames and forTLS are what the process reads to find hosts and to know them, where the distributions have it.
var (
	forNames = []string{"/etc/resolv.conf", "/etc/hosts"}
	forTLS   = []string{
		"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/certs", "/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust",
		"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki",
	}
	// fromEnvironment is what it takes over of the agent's environment.
	fromEnvironment = []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)

// repository makes what the update client looks at. Directories the agent reads itself; web servers are the business of a process without privileges.
// The returned function ends that.
func (a *Agent) repository(own trust.Config, mirrors, streams []string) (client.Repository, func(), error) {
	setup := fetch.Setup{Root: own.Root, Streams: streams, Built: own.Built, Rate: own.Pace.Rate}
	for _, m := range mirrors {
		at := trust.At(strings.TrimSuffix(m, "/"))
		if strings.HasPrefix(m, "file:") {
			own.Mirrors = append(own.Mirrors, at)
		} else {
			setup.Mirrors = append(setup.Mirrors, at)
		}
	}
	if len(setup.Mirrors) == 0 {
		c, err := trust.New(own)
		return client.Trusted{Client: c}, func() {}, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find this program: %w", err)
	}
	s := product.Servant{
		Name: "agent." + fetchDir, Command: []string{self, FetchWord}, Dir: filepath.Join(a.cfg.Agent.State, updateDir, fetchDir),
		Read: append(append([]string{self}, forNames...), forTLS...), Memory: fetchMemory, File: fetchFile,
		Env: []string{"GOMAXPROCS=1", fmt.Sprintf("GOMEMLIMIT=%d", fetchMemory/10*8), "HOME=" + contain.StateDir, "TMPDIR=" + contain.TmpDir},
	}
	for _, name := range fromEnvironment {
		if v := os.Getenv(name); v != "" {
			s.Env = append(s.Env, name+"="+v)
		}
	}
	for _, p := range []string{os.Getenv("SSL_CERT_FILE"), os.Getenv("SSL_CERT_DIR")} {
		if filepath.IsAbs(p) {
			s.Read = append(s.Read, filepath.Clean(p))
		}
	}
	r, err := fetch.New(fetch.Config{
		Dir: s.Dir, Setup: setup, Trust: own, Place: func() string { return identities(append([]string{self}, forNames...)) },
		Start: func() (fetch.Process, error) {
			v, err := a.products.Serve(s)
			if err != nil {
				return nil, err
			}
			return fetching{v, a}, nil
		},
	})
	if err != nil {
		return nil, nil, err
	}
	return r, r.Close, nil
}

// fetching is the process.
type fetching struct {
	*product.Serving
	a *Agent
}

func (f fetching) Conn() net.Conn { return f.Serving.Conn }

func (f fetching) End() string {
	said, err := f.Serving.End()
	if err != nil {
		f.a.log.Error("something of the process that fetches is left", "err", err)
	}
	return said
}

// identities changes when another file is at one of the paths, or what it says.
func identities(paths []string) string {
	var b strings.Builder
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			st = unix.Stat_t{}
		}
		fmt.Fprintf(&b, "%d %d %d %d;", st.Dev, st.Ino, st.Mtim.Sec, st.Mtim.Nsec)
	}
	return b.String()
}
