package trust_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bailey/update/trust"
	"bailey/update/updatetest"

	"github.com/google/go-cmp/cmp"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// edge is a delegation: from one role to another, for paths, perhaps the last that is looked at.
type edge struct {
	from, to string
	paths    string // empty: all at the top
	last     bool
}

// graph makes a repository of delegations, as the specification allows them and the house rules do not.
func graph(edges []edge, files map[string]string) *updatetest.Repository {
	r := updatetest.New(now)
	key := updatetest.NewKey("graph")
	r.Roles = map[string]*updatetest.Targets{"targets": metadata.Targets(now.Add(24 * time.Hour))}
	r.Roles["targets"].Signed.Version = 1
	r.Snapshot.Signed.Meta = map[string]*metadata.MetaFiles{}
	for _, e := range edges {
		if r.Roles[e.to] == nil {
			r.Roles[e.to] = metadata.Targets(now.Add(24 * time.Hour))
			r.Roles[e.to].Signed.Version = 0
			r.Keys[e.to] = []updatetest.Key{key}
		}
		if e.paths == "" {
			e.paths = "*"
		}
		d := r.Roles[e.from].Signed.Delegations
		if d == nil {
			d = &metadata.Delegations{Keys: map[string]*metadata.Key{key.ID: key.Public}}
			r.Roles[e.from].Signed.Delegations = d
		}
		d.Roles = append(d.Roles, metadata.DelegatedRole{Name: e.to, KeyIDs: []string{key.ID}, Threshold: 1, Terminating: e.last, Paths: strings.Fields(e.paths)})
	}
	for path, role := range files {
		r.Target(role, path, []byte(role), nil)
	}
	r.Commit()
	return r
}

// TestFindWalksDelegations: roles are asked in the order in which they are delegated to, deepest first, each once.
func TestFindWalksDelegations(t *testing.T) {
	t.Parallel()
	tree := []edge{{from: "targets", to: "a", paths: "*.doc *.md"}, {from: "targets", to: "b", paths: "out/*/*"}, {from: "b", to: "c", paths: "out/x/*"}, {from: "b", to: "d", paths: "out/y/*.zip"}}
	files := map[string]string{"plain": "targets", "read.md": "a", "out/x/1": "c", "out/y/1.zip": "d", "out/z/1.zip": "d"}
	for name, tc := range map[string]struct {
		edges  []edge
		files  map[string]string
		path   string
		asked  string
		signed string // by whom, if it is found
	}{
		"in_order":       {edges: []edge{{from: "targets", to: "a"}, {from: "targets", to: "b"}, {from: "b", to: "c"}}, path: "x", asked: "a b c"},
		"deepest_first":  {edges: []edge{{from: "targets", to: "a"}, {from: "targets", to: "b"}, {from: "a", to: "c"}, {from: "c", to: "d"}}, path: "x", asked: "a c d b"},
		"last_of_all":    {edges: []edge{{from: "targets", to: "a"}, {from: "targets", to: "b"}, {from: "a", to: "c", last: true}, {from: "a", to: "e"}, {from: "c", to: "d"}}, path: "x", asked: "a c d"},
		"other_paths":    {edges: []edge{{from: "targets", to: "a", paths: "*.py"}, {from: "targets", to: "b"}, {from: "a", to: "c"}}, path: "x", asked: "b"},
		"round":          {edges: []edge{{from: "targets", to: "a"}, {from: "a", to: "b"}, {from: "b", to: "c"}, {from: "c", to: "a"}}, path: "x", asked: "a b c"},
		"two_ways":       {edges: []edge{{from: "targets", to: "a"}, {from: "targets", to: "b"}, {from: "b", to: "c"}, {from: "a", to: "c"}}, path: "x", asked: "a c b"},
		"at_the_top":     {edges: tree, files: files, path: "plain", signed: "targets"},
		"by_pattern":     {edges: tree, files: files, path: "read.md", asked: "a", signed: "a"},
		"two_levels":     {edges: tree, files: files, path: "out/x/1", asked: "b c", signed: "c"},
		"second_pattern": {edges: tree, files: files, path: "out/y/1.zip", asked: "b d", signed: "d"},
		"not_delegated":  {edges: tree, files: files, path: "out/z/1.zip", asked: "b"},
		"star_and_slash": {edges: []edge{{from: "targets", to: "a"}}, files: map[string]string{"x/y": "a"}, path: "x/y"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := graph(tc.edges, tc.files)
			s := &updatetest.Server{Repository: r}
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			cfg := config(t, r, server.URL)
			cfg.Rules = trust.SpecificationOnly
			c, err := trust.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			v, err := c.Refresh(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			s.Seen()
			found, err := v.Find(t.Context(), tc.path)
			if tc.signed == "" && !errors.Is(err, trust.ErrNotFound) || tc.signed != "" && (err != nil || found.Role != tc.signed) {
				t.Errorf("%+v, %v", found, err)
			}
			asked := []string{}
			for _, line := range s.Seen() {
				_, file, _ := strings.Cut(line, "/metadata/1.")
				asked = append(asked, strings.TrimSuffix(file, ".json"))
			}
			if diff := cmp.Diff(strings.Fields(tc.asked), asked); diff != "" {
				t.Errorf("who was asked (-want +got):\n%s", diff)
			}
			// Nobody who follows the house rules looks into such a repository.
			cfg.Rules, cfg.Dir = trust.HouseRules, t.TempDir()
			if c, err = trust.New(cfg); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Refresh(t.Context()); err == nil {
				t.Error("the house rules let it through")
			}
		})
	}
}
