package corpus

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"bailey/agent/event"
	"bailey/internal/strictjson"

	"golang.org/x/sys/unix"
)

// What a product may bring.
const (
	OwnDir  = "rehearsal"  // of its folder
	ownList = "tests.json" // in OwnDir

	maxOwnList  = 256 << 10
	maxOwnTests = 512
	maxOwnFile  = 16 << 20
	maxOwnPath  = 1024
)

// Test is one question that a vendor knows the answer to.
type Test struct {
	File   string `json:"file"`           // its name in the directory
	Path   string `json:"path,omitempty"` // where it is said to lie; empty: /rehearsal/FILE
	Ask    string `json:"ask"`            // exec or open
	Expect string `json:"expect"`         // allow or deny
}

// Kind is what is asked.
func (t *Test) Kind() event.Kind {
	if t.Ask == event.Exec.String() {
		return event.Exec
	}
	return event.Open
}

// Denied reports whether the answer is to be a deny.
func (t *Test) Denied() bool { return t.Expect == "deny" }

// Own is the test set that a product's folder brings. Close it.
type Own struct {
	Tests []Test
	dir   *os.Root // nil: it brings none
}

// OpenOwn reads the test set of a product folder. A folder without one has an empty one.
func OpenOwn(folder string) (*Own, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("read the product's own tests: %w", err)
	}
	defer func() { _ = root.Close() }()
	dir, err := root.OpenRoot(OwnDir)
	if errors.Is(err, fs.ErrNotExist) {
		return &Own{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the product's own tests: %w", err)
	}
	o := &Own{dir: dir}
	if o.Tests, err = o.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the product's own tests: %w", err), dir.Close())
	}
	return o, nil
}

func (o *Own) read() ([]Test, error) {
	f, err := o.regular(ownList, maxOwnList)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxOwnList+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", ownList, err)
	}
	tests, err := ParseOwn(text)
	if err != nil {
		return nil, err
	}
	for _, t := range tests { // a list that names what is not there would test nothing
		f, err := o.Open(&t)
		if err != nil {
			return nil, err
		}
		_ = f.Close() // it was only looked at
	}
	return tests, nil
}

// ParseOwn reads a list of tests.
func ParseOwn(text []byte) ([]Test, error) {
	var list struct {
		Schema int    `json:"schema"`
		Tests  []Test `json:"tests"`
	}
	if err := strictjson.Unmarshal(text, strictjson.Limits{Bytes: maxOwnList, Depth: 4, Values: 10 * maxOwnTests}, &list); err != nil {
		return nil, fmt.Errorf("read %s: %w", ownList, err)
	}
	switch {
	case list.Schema != 1:
		return nil, fmt.Errorf("read %s: its schema is %d, and this version reads 1", ownList, list.Schema)
	case len(list.Tests) > maxOwnTests:
		return nil, fmt.Errorf("read %s: it has %d tests, at most %d are read", ownList, len(list.Tests), maxOwnTests)
	}
	for i := range list.Tests {
		if err := list.Tests[i].check(); err != nil {
			return nil, fmt.Errorf("read %s: test %d: %w", ownList, i+1, err)
		}
	}
	return list.Tests, nil
}

// check completes a test, or says what is wrong with it.
func (t *Test) check() error {
	if !fs.ValidPath(t.File) || t.File == "." || len(t.File) > maxOwnPath {
		return fmt.Errorf("%.80q is no name of a file in %s", t.File, OwnDir)
	}
	if t.Path == "" {
		t.Path = "/" + OwnDir + "/" + t.File
	}
	if err := checkPaths("path", []string{t.Path}); err != nil || len(t.Path) > maxOwnPath || path.Base(t.Path) == "/" {
		return fmt.Errorf("%.80q is no plain absolute path", t.Path)
	}
	if _, err := Questions(t.Ask); err != nil {
		return err
	}
	if t.Expect != "allow" && t.Expect != "deny" {
		return fmt.Errorf("%.40q is no answer to expect: allow or deny", t.Expect)
	}
	return nil
}

// Open opens the file of a test for reading.
func (o *Own) Open(t *Test) (*os.File, error) { return o.regular(t.File, maxOwnFile) }

// regular opens a regular file of the directory that is not too large. Nothing in the directory can make the opener wait.
func (o *Own) regular(name string, limit int64) (*os.File, error) {
	f, err := o.dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = errors.New("it is no regular file")
	case st.Size() > limit:
		err = fmt.Errorf("it has %d bytes, at most %d are read", st.Size(), limit)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
	}
	return f, nil
}

// Close ends its use.
func (o *Own) Close() error {
	if o.dir == nil {
		return nil
	}
	return o.dir.Close()
}
