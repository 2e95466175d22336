package packagedb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const dpkgDir = "/var/lib/dpkg"

// maxLine bounds one line of a dpkg file: the longest path the kernel takes is 4 KiB.
const maxLine = 64 << 10

// dpkgPackage is one stanza of dpkg's status file.
type dpkgPackage struct {
	Package
	multiArchSame bool
	conffiles     []conffile
}

// conffile is a configuration file with the md5 of the version that the package brought.
type conffile struct {
	path   string
	digest string
}

// diversion says that files of every package but one live under another name.
type diversion struct {
	to string
	by string // the package whose own file keeps the name; ":" for none
}

// readDpkg adds everything of one dpkg database to b. A package whose list is missing owns nothing; a database whose
// status cannot be read is an error, because a half-read database would call good files unknown.
func readDpkg(b *builder, root string) error {
	dir := filepath.Join(root, dpkgDir)
	status, err := os.Open(filepath.Join(dir, "status"))
	if err != nil {
		return fmt.Errorf("open dpkg status: %w", err)
	}
	defer status.Close()
	packages, err := parseStatus(status)
	if err != nil {
		return fmt.Errorf("read dpkg status: %w", err)
	}
	diversions, err := readDiversions(filepath.Join(dir, "diversions"))
	if err != nil {
		return err
	}
	for i := range packages {
		if err := addDpkgPackage(b, filepath.Join(dir, "info"), &packages[i], diversions); err != nil {
			return err
		}
	}
	return nil
}

func addDpkgPackage(b *builder, info string, p *dpkgPackage, diversions map[string]diversion) error {
	base := filepath.Join(info, p.Name)
	if p.multiArchSame {
		base += ":" + p.Arch
	}
	list, err := os.ReadFile(base + ".list")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read file list of %s: %w", p.Name, err)
	}
	sums, err := os.ReadFile(base + ".md5sums")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read digests of %s: %w", p.Name, err)
	}
	pkg := b.addPackage(p.Package)
	digests := parseMD5Sums(sums)
	config := make(map[string]string, len(p.conffiles))
	for _, c := range p.conffiles {
		config[c.path] = c.digest
	}
	for path := range listedFiles(list) {
		name := path
		if d, ok := diversions[path]; ok && d.by != p.Name {
			name = d.to
		}
		r := b.addFile(pkg, name)
		if r == nil {
			continue
		}
		digest, isConfig := config[path]
		r.config = isConfig
		if !isConfig {
			digest = digests[path[1:]]
		}
		b.setDigest(r, MD5, []byte(digest))
	}
	return nil
}

// parseStatus reads the stanzas of installed packages, in whatever state of installation they are.
func parseStatus(r io.Reader) ([]dpkgPackage, error) {
	var out []dpkgPackage
	var p dpkgPackage
	var inConffiles, absent bool
	flush := func() {
		if p.Name != "" && !absent {
			p.Manager = "dpkg"
			out = append(out, p)
		}
		p, inConffiles, absent = dpkgPackage{}, false, false
	}
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		switch {
		case len(line) == 0:
			if err != nil {
				flush()
				return out, nil
			}
			flush()
		case line[0] == ' ' || line[0] == '\t':
			if inConffiles {
				p.addConffile(line)
			}
		default:
			key, value, _ := strings.Cut(string(line), ":")
			inConffiles = key == "Conffiles"
			if key == "Status" {
				words := strings.Fields(value)
				absent = len(words) == 3 && (words[2] == "not-installed" || words[2] == "config-files")
			}
			p.set(key, strings.TrimSpace(value))
		}
		if err != nil {
			flush()
			return out, nil
		}
	}
}

func (p *dpkgPackage) set(key, value string) {
	switch key {
	case "Package":
		if validName(value) {
			p.Name = value
		}
	case "Architecture":
		if validName(value) {
			p.Arch = value
		}
	case "Version":
		p.Version = value
	case "Essential", "Protected":
		p.Essential = p.Essential || value == "yes"
	case "Priority":
		p.Required = value == "required"
	case "Multi-Arch":
		p.multiArchSame = value == "same"
	}
}

func (p *dpkgPackage) addConffile(line []byte) {
	words := strings.Fields(string(line))
	if len(words) < 2 || !strings.HasPrefix(words[0], "/") {
		return
	}
	p.conffiles = append(p.conffiles, conffile{path: words[0], digest: words[1]})
}

// validName keeps a name from a damaged database from becoming a path outside info/.
func validName(s string) bool {
	return s != "" && s[0] != '.' && !strings.ContainsAny(s, "/\x00")
}

// readLine returns the next line without its end; the part of a line beyond the buffer is dropped, because only
// descriptions are that long.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, more, err := r.ReadLine()
	if !more || err != nil {
		return line, err
	}
	line = bytes.Clone(line)
	for more && err == nil {
		_, more, err = r.ReadLine()
	}
	return line, err
}

// listedFiles iterates over the paths of a .list file that are not directories. dpkg writes a directory immediately
// before the first path in it, so a path that the next one continues is a directory; an empty directory slips through
// and does no harm.
func listedFiles(list []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		text := string(list)
		for text != "" {
			var line string
			line, text, _ = strings.Cut(text, "\n")
			if len(line) < 2 || line[0] != '/' {
				continue
			}
			if strings.HasPrefix(text, line) && len(text) > len(line) && text[len(line)] == '/' {
				continue
			}
			if !yield(line) {
				return
			}
		}
	}
}

// parseMD5Sums reads lines of "md5  path", the path relative to the root.
func parseMD5Sums(sums []byte) map[string]string {
	text := string(sums)
	out := make(map[string]string, strings.Count(text, "\n"))
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		digest, path, ok := strings.Cut(line, "  ")
		if !ok || len(digest) != 2*MD5.Size() {
			continue
		}
		out[strings.TrimPrefix(path, "./")] = digest
	}
	return out
}

func readDiversions(path string) (map[string]diversion, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open dpkg diversions: %w", err)
	}
	defer f.Close()
	d, err := parseDiversions(f)
	if err != nil {
		return nil, fmt.Errorf("read dpkg diversions: %w", err)
	}
	return d, nil
}

// parseDiversions reads groups of three lines: the name, the name it is diverted to, the package that keeps the name.
func parseDiversions(r io.Reader) (map[string]diversion, error) {
	out := make(map[string]diversion)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var group []string
	for lines.Scan() {
		group = append(group, lines.Text())
		if len(group) == 3 {
			out[group[0]] = diversion{to: group[1], by: group[2]}
			group = group[:0]
		}
	}
	return out, lines.Err()
}
