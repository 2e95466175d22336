package fleetcli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bailey/internal/passphrase"
	"bailey/update/publish"

	"github.com/spf13/cobra"
)

// place is where a command finds the repository and its keys.
type place struct {
	a          *app
	dir        string
	root       string
	keyDir     string
	keys       []string
	passphrase string
}

// rootName is the file in the directory of keys that says which repository they belong to.
const rootName = "root.json"

// keySuffix ends the name of a private key's file.
const keySuffix = ".key"

func (p *place) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.dir, "dir", ".", "directory of the repository")
	f.StringVar(&p.root, "root", "", "a root that is known to be this repository's (default: "+rootName+" in the directory of keys)")
	p.keyFlags(cmd)
}

func (p *place) keyFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.keyDir, "keys", "", "directory whose *"+keySuffix+" files may sign; only those that are needed are opened")
	f.StringArrayVar(&p.keys, "key", nil, "file of a key that may sign; can be given several times")
	f.StringVar(&p.passphrase, "passphrase-file", "", "file whose first line is the passphrase of all keys (default: ask on the terminal)")
}

// signers returns the keys that are at hand.
func (p *place) signers() ([]publish.Signer, error) {
	paths := p.keys
	if p.keyDir != "" {
		found, err := filepath.Glob(filepath.Join(p.keyDir, "*"+keySuffix))
		if err != nil {
			return nil, err
		}
		paths = append(found, paths...)
	}
	var out []publish.Signer
	for _, path := range paths {
		s, err := publish.OpenKey(path, p.ask)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// ask gets the passphrase of one key.
func (p *place) ask(ctx context.Context, path string) ([]byte, error) {
	return passphrase.Read(ctx, "of "+filepath.Base(path), p.passphrase, false)
}

// config names the repository by the root that is known of it.
func (p *place) config() (publish.Config, error) {
	path := p.root
	if path == "" && p.keyDir != "" {
		path = filepath.Join(p.keyDir, rootName)
	}
	if path == "" {
		return publish.Config{}, &failure{ExitUsage, "it is not known which repository this should be", "name its root with --root, or the directory of keys with --keys"}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return publish.Config{}, fmt.Errorf("read the root: %w", err)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "metadata")); errors.Is(err, fs.ErrNotExist) {
		return publish.Config{}, &failure{ExitNotFound, p.dir + " is no repository", "name one with --dir, or make one with `bailey-fleet repo init`"}
	}
	return publish.Config{Dir: p.dir, Root: text, Now: p.a.Now}, nil
}

// change opens the repository for one change, with the keys at hand.
func (p *place) change(f func(r *publish.Repository, signers []publish.Signer) error) error {
	signers, err := p.signers()
	if err != nil {
		return err
	}
	cfg, err := p.config()
	if err != nil {
		return err
	}
	r, err := publish.Open(cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	return f(r, signers)
}

// public reads files of public keys.
func public(paths []string) ([]publish.Public, error) {
	var out []publish.Public
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read a public key: %w", err)
		}
		k, err := publish.ParsePublic(string(text))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		out = append(out, k)
	}
	return out, nil
}
