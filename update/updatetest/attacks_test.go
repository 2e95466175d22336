package updatetest_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"bailey/update/release"
	"bailey/update/trust"
	"bailey/update/updatetest"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// attack is something that a mirror or the holder of some keys does to a client.
type attack struct {
	fresh bool  // the client has no past
	class error // why it is refused
	do    func(s *stand)
}

var (
	acme, globex = updatetest.Acme(), updatetest.Globex()
	acmePath     = acme.Path(updatetest.Describe(acme, "1.0").Version, "")
	globexPath   = globex.Path(updatetest.Describe(globex, "1.0").Version, "")
	mallory      = updatetest.NewKey("mallory")
)

// rewrite changes what acme signs, as acme can, and has the platform publish it.
func rewrite(from, to string) func(s *stand) {
	return func(s *stand) {
		s.Roles[acme.Role()].Signed.Version++
		text := updatetest.Signed(s.Roles[acme.Role()], s.Keys[acme.Role()]...)
		s.Put(acme.Role(), s.Roles[acme.Role()].Signed.Version, updatetest.Rewritten(text, from, to, s.Keys[acme.Role()]...))
		s.CommitSnapshot()
		s.CommitTimestamp()
	}
}

// index changes the top-level targets, as the holder of their key can.
func index(change func(d *metadata.TargetsType)) func(s *stand) {
	return func(s *stand) {
		change(&s.Roles[metadata.TARGETS].Signed)
		s.Commit()
	}
}

// instead answers every request for a path that contains part.
func instead(part string, answer func(w http.ResponseWriter, r *http.Request)) func(s *stand) {
	return func(s *stand) {
		s.Release(acme, "1.1", []byte("acme two"))
		s.Commit()
		s.server.Instead = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, part) {
				return false
			}
			answer(w, r)
			return true
		}
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	junk := []byte(strings.Repeat(" ", 64<<10))
	for r.Context().Err() == nil {
		if _, err := w.Write(junk); err != nil {
			return
		}
	}
}

func slow(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			if _, err := w.Write([]byte("{")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}

func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// spoil changes one served file.
func spoil(name string, change func(text []byte) []byte) func(s *stand) {
	return func(s *stand) {
		s.Release(acme, "1.1", []byte("acme two"))
		s.Commit()
		for path, text := range s.Files {
			if strings.Contains(path, name) {
				s.Files[path] = change(append([]byte{}, text...))
			}
		}
	}
}

func half(text []byte) []byte { return text[:len(text)/2] }

// newBundle is where acme's second release is served.
var newBundle = updatetest.TargetFile(strings.Replace(acmePath, "1.0", "1.1", 1), []byte("acme two"))

var attacks = map[string]attack{
	"rollback_of_everything": {class: trust.ErrRollback, do: func(s *stand) {
		old := s.Keep()
		s.Commit()
		if _, err := s.newest(acme); err != nil {
			panic(err)
		}
		s.Files = old
	}},
	"rollback_of_a_snapshot_by_the_timestamp_key": {class: trust.ErrRollback, do: func(s *stand) {
		old := *s.Timestamp.Signed.Meta["snapshot.json"]
		s.Commit()
		if _, err := s.newest(acme); err != nil {
			panic(err)
		}
		s.Timestamp.Signed.Meta["snapshot.json"] = &old
		s.CommitTimestamp()
	}},
	"rollback_of_a_role_by_the_snapshot_key": {class: trust.ErrRollback, do: func(s *stand) {
		old := *s.Snapshot.Signed.Meta[acme.Role()+".json"]
		s.Commit()
		if _, err := s.newest(acme); err != nil {
			panic(err)
		}
		s.Snapshot.Signed.Meta[acme.Role()+".json"] = &old
		s.CommitSnapshot()
		s.CommitTimestamp()
	}},
	"role_dropped_from_the_snapshot": {class: trust.ErrRollback, do: func(s *stand) {
		delete(s.Snapshot.Signed.Meta, acme.Role()+".json")
		s.CommitSnapshot()
		s.CommitTimestamp()
	}},
	"freeze":        {class: trust.ErrExpired, do: func(s *stand) { s.now = s.now.Add(25 * time.Hour) }},
	"freeze_of_new": {fresh: true, class: trust.ErrExpired, do: func(s *stand) { s.now = s.now.Add(25 * time.Hour) }},
	"old_timestamp_to_a_new_machine": {fresh: true, class: trust.ErrRollback, do: func(s *stand) {
		s.config.Minimum = trust.Versions{Timestamp: 2}
		c, err := trust.New(s.config)
		if err != nil {
			panic(err)
		}
		s.client = c
	}},
	"mix_of_roles": {class: trust.ErrMismatch, do: func(s *stand) {
		s.Commit()
		s.Files["metadata/2."+acme.Role()+".json"] = s.Files["metadata/1."+acme.Role()+".json"]
	}},
	"mix_of_snapshots": {class: trust.ErrMismatch, do: func(s *stand) {
		s.Commit()
		s.Files["metadata/2.snapshot.json"] = s.Files["metadata/1.snapshot.json"]
	}},
	"another_vendors_role_in_place": {class: trust.ErrSize, do: func(s *stand) {
		s.Commit()
		s.Files["metadata/2."+acme.Role()+".json"] = s.Files["metadata/2."+globex.Role()+".json"]
	}},

	"signs_another_vendors_path": {class: trust.ErrDelegation, do: func(s *stand) {
		s.Target(acme.Role(), globexPath, []byte("forged"), nil)
		s.Commit()
	}},
	"signs_another_vendors_delta": {class: trust.ErrDelegation, do: func(s *stand) {
		s.Target(acme.Role(), release.DeltaPath(strings.Replace(globexPath, "1.0", "2.0", 1), updatetest.Describe(globex, "1.0").Version), []byte("forged"), nil)
		s.Commit()
	}},
	"signs_its_own_code_with_the_contents_key": {class: trust.ErrDelegation, do: func(s *stand) {
		s.Target(acme.Role(), strings.Replace(acmePath, "content", "code", 1), []byte("forged"), nil)
		s.Commit()
	}},
	"signs_the_policy": {class: trust.ErrDelegation, do: func(s *stand) {
		s.Target(acme.Role(), release.PolicyPath, []byte("{}"), nil)
		s.Commit()
	}},
	"says_that_it_is_another": {class: trust.ErrMalformed, do: func(s *stand) {
		custom, err := updatetest.Describe(globex, "9").JSON()
		if err != nil {
			panic(err)
		}
		s.Roles[acme.Role()].Signed.Targets = map[string]*metadata.TargetFiles{}
		s.Target(acme.Role(), strings.Replace(acmePath, "1.0", "9", 1), []byte("forged"), custom)
		s.Commit()
	}},
	"delegates": {class: trust.ErrDelegation, do: func(s *stand) {
		s.Roles[acme.Role()].Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{}}
		s.Commit()
	}},
	"targets_key_gives_paths_away": {class: trust.ErrDelegation, do: func(s *stand) {
		s.Delegate(acme.Role(), globex.Pattern(), 1, s.Keys[acme.Role()]...)
		s.Commit()
	}},
	"targets_key_gives_all_paths": {class: trust.ErrDelegation, do: index(func(d *metadata.TargetsType) { d.Delegations.Roles[0].Paths = []string{"*/*/*/*"} })},
	"targets_key_gives_more_paths": {class: trust.ErrDelegation, do: index(func(d *metadata.TargetsType) {
		d.Delegations.Roles[0].Paths = append(d.Delegations.Roles[0].Paths, "x/*")
	})},
	"targets_key_gives_hashed_paths": {class: trust.ErrDelegation, do: index(func(d *metadata.TargetsType) {
		r := &d.Delegations.Roles[0]
		r.Paths, r.PathHashPrefixes = nil, []string{"0"}
	})},
	"targets_key_lets_others_follow": {class: trust.ErrDelegation, do: index(func(d *metadata.TargetsType) { d.Delegations.Roles[0].Terminating = false })},
	"targets_key_delegates_twice": {class: trust.ErrDelegation, do: index(func(d *metadata.TargetsType) {
		d.Delegations.Roles = append(d.Delegations.Roles, d.Delegations.Roles[0])
	})},
	"targets_key_makes_bins": {class: trust.ErrDelegation, do: index(func(d *metadata.TargetsType) {
		d.Delegations.Roles = nil
		d.Delegations.SuccinctRoles = &metadata.SuccinctRoles{KeyIDs: []string{mallory.ID}, Threshold: 1, BitLength: 33, NamePrefix: "x"}
	})},
	"targets_key_signs_releases": {class: trust.ErrDelegation, do: index(func(d *metadata.TargetsType) { d.Targets[acmePath] = metadata.TargetFile() })},

	"expired_role":     {class: trust.ErrExpired, do: func(s *stand) { s.Roles[acme.Role()].Signed.Expires = start.Add(-time.Second); s.Commit() }},
	"expired_snapshot": {class: trust.ErrExpired, do: func(s *stand) { s.Snapshot.Signed.Expires = start.Add(-time.Second); s.Commit() }},
	"expired_targets":  {class: trust.ErrExpired, do: index(func(d *metadata.TargetsType) { d.Expires = start.Add(-time.Second) })},
	"expired_root": {class: trust.ErrExpired, do: func(s *stand) {
		s.Root.Signed.Expires = start.Add(-time.Second)
		s.CommitRoot()
		s.Commit()
		s.restartNow()
	}},

	"role_by_another_key":      {class: trust.ErrSignature, do: func(s *stand) { s.Keys[acme.Role()] = []updatetest.Key{mallory}; s.Commit() }},
	"role_by_another_vendor":   {class: trust.ErrSignature, do: func(s *stand) { s.Keys[acme.Role()] = s.Keys[globex.Role()]; s.Commit() }},
	"timestamp_by_another_key": {class: trust.ErrSignature, do: func(s *stand) { s.Keys[metadata.TIMESTAMP] = []updatetest.Key{mallory}; s.Commit() }},
	"snapshot_by_another_key":  {class: trust.ErrSignature, do: func(s *stand) { s.Keys[metadata.SNAPSHOT] = []updatetest.Key{mallory}; s.Commit() }},
	"targets_by_another_key":   {class: trust.ErrSignature, do: func(s *stand) { s.Keys[metadata.TARGETS] = []updatetest.Key{mallory}; s.Commit() }},
	"threshold_not_met": {class: trust.ErrSignature, do: func(s *stand) {
		s.Delegate(acme.Role(), acme.Pattern(), 2, updatetest.NewKey("acme"), updatetest.NewKey("acme-b"))
		s.Keys[acme.Role()] = s.Keys[acme.Role()][:1]
		s.Commit()
	}},
	"threshold_met_by_one_key_twice": {class: trust.ErrMalformed, do: func(s *stand) {
		s.Delegate(acme.Role(), acme.Pattern(), 2, updatetest.NewKey("acme"), updatetest.NewKey("acme-b"))
		s.Keys[acme.Role()][1] = s.Keys[acme.Role()][0]
		s.Commit()
	}},
	"threshold_met_by_one_key_with_two_names": {class: trust.ErrSignature, do: func(s *stand) {
		k := updatetest.NewKey("acme")
		alias := k
		alias.ID = strings.Repeat("0", 64)
		s.Delegate(acme.Role(), acme.Pattern(), 2, k, alias)
		s.Commit()
	}},
	"threshold_zero":     {class: trust.ErrMalformed, do: index(func(d *metadata.TargetsType) { d.Delegations.Roles[0].Threshold = 0 })},
	"threshold_too_high": {class: trust.ErrMalformed, do: index(func(d *metadata.TargetsType) { d.Delegations.Roles[0].Threshold = 2 })},
	"root_by_one_of_two": {class: trust.ErrSignature, do: func(s *stand) {
		s.Keys[metadata.ROOT] = s.Keys[metadata.ROOT][:1]
		s.CommitRoot()
		s.restartNow()
	}},
	"root_by_its_own_keys": {class: trust.ErrSignature, do: func(s *stand) {
		s.Assign(metadata.ROOT, 1, mallory)
		s.CommitRoot()
		s.restartNow()
	}},
	"root_that_skips_one": {class: trust.ErrRollback, do: func(s *stand) {
		s.Root.Signed.Version++
		s.CommitRoot()
		s.Files["metadata/2.root.json"] = s.Files["metadata/3.root.json"]
		s.restartNow()
	}},
	"root_again":          {class: trust.ErrRollback, do: func(s *stand) { s.Files["metadata/2.root.json"] = s.Files["metadata/1.root.json"]; s.restartNow() }},
	"root_threshold_zero": {class: trust.ErrMalformed, do: func(s *stand) { s.Root.Signed.Roles["timestamp"].Threshold = 0; s.CommitRoot(); s.restartNow() }},
	"revoked_timestamp_key": {class: trust.ErrSignature, do: func(s *stand) {
		s.Assign(metadata.TIMESTAMP, 1, updatetest.NewKey("timestamp-b"))
		s.CommitRoot()
		s.Keys[metadata.TIMESTAMP] = []updatetest.Key{updatetest.NewKey(metadata.TIMESTAMP)}
		s.Commit()
		s.restartNow()
	}},
	"revoked_vendor_key": {class: trust.ErrSignature, do: func(s *stand) {
		s.Delegate(acme.Role(), acme.Pattern(), 1, updatetest.NewKey("acme-b"))
		s.Keys[acme.Role()] = []updatetest.Key{updatetest.NewKey("acme")}
		s.Commit()
	}},

	"endless_timestamp": {class: trust.ErrSize, do: instead("timestamp", endless)},
	"endless_root":      {class: trust.ErrSize, do: func(s *stand) { instead("root", endless)(s); s.restartNow() }},
	"endless_role":      {class: trust.ErrSize, do: instead(acme.Role(), endless)},
	"endless_bundle":    {class: trust.ErrSize, do: instead("tar.zst", endless)},
	"slow_timestamp":    {class: trust.ErrSlow, do: instead("timestamp", slow)},
	"slow_bundle":       {class: trust.ErrSlow, do: instead("tar.zst", silent)},
	"silent_timestamp":  {class: trust.ErrSlow, do: instead("timestamp", silent)},
	"server_error":      {class: trust.ErrUnavailable, do: instead("timestamp", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })},
	"missing_role":      {class: trust.ErrUnavailable, do: instead("2."+acme.Role(), http.NotFound)},
	"missing_bundle":    {class: trust.ErrNotFound, do: instead("tar.zst", http.NotFound)},

	"truncated_timestamp": {class: trust.ErrMalformed, do: spoil("timestamp", half)},
	"truncated_snapshot":  {class: trust.ErrMismatch, do: spoil("2.snapshot", half)},
	"truncated_role":      {class: trust.ErrMismatch, do: spoil("2."+acme.Role(), half)},
	"truncated_bundle":    {class: trust.ErrUnavailable, do: spoil(newBundle, half)},
	"replaced_bundle":     {class: trust.ErrMismatch, do: spoil(newBundle, func([]byte) []byte { return []byte("forged!!") })},
	"longer_bundle":       {class: trust.ErrSize, do: spoil(newBundle, func(b []byte) []byte { return append(b, '!') })},
	"huge_role": {class: trust.ErrSize, do: func(s *stand) {
		s.Roles[acme.Role()].Signed.UnrecognizedFields = map[string]any{"x": strings.Repeat("x", 70<<10)}
		s.Commit()
	}},
	"too_many_targets": {class: trust.ErrSize, do: func(s *stand) {
		for i := range trust.MaxLive {
			s.Release(acme, fmt.Sprintf("2.%d", i), []byte("x"))
		}
		s.Commit()
	}},
	"deep":        {class: trust.ErrSize, do: rewrite(`"_type"`, `"x":`+strings.Repeat(`[`, 100)+strings.Repeat(`]`, 100)+`,"_type"`)},
	"utf8":        {class: trust.ErrMalformed, do: rewrite(`"_type"`, "\"x\":\"\xff\",\"_type\"")},
	"float":       {class: trust.ErrMalformed, do: rewrite(`"_type"`, `"x":1.5,"_type"`)},
	"exponent":    {class: trust.ErrMalformed, do: rewrite(`"_type"`, `"x":1e400,"_type"`)},
	"duplicate":   {class: trust.ErrMalformed, do: rewrite(`"_type"`, `"version":1,"_type"`)},
	"other_case":  {class: trust.ErrMalformed, do: rewrite(`"_type"`, `"Targets":{},"_type"`)},
	"null":        {class: trust.ErrMalformed, do: rewrite(`"_type"`, `"x":null,"_type"`)},
	"null_target": {class: trust.ErrMalformed, do: rewrite(`"targets":{`, `"targets":{"`+strings.Replace(acmePath, "1.0", "2.0", 1)+`":null,`)},
	"null_key":    {class: trust.ErrMalformed, do: rewrite(`"_type"`, `"delegations":{"keys":{"k":null},"roles":[{"name":"`+globex.Role()+`","keyids":["k"],"threshold":1,"terminating":false,"paths":["*/*/*/*"]}]},"_type"`)},
	"short_key": {class: trust.ErrDelegation, do: rewrite(`"_type"`, `"delegations":{"keys":{"k":{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"`+strings.Repeat("ab", 31)+
		`"}}},"roles":[{"name":"`+globex.Role()+`","keyids":["k"],"threshold":1,"terminating":false,"paths":["*/*/*/*"]}]},"_type"`)},
	"short_key_in_targets": {class: trust.ErrMalformed, do: func(s *stand) {
		d := s.Roles[metadata.TARGETS].Signed.Delegations
		short := *updatetest.NewKey("acme").Public
		short.Value.PublicKey = short.Value.PublicKey[:62]
		d.Keys[updatetest.NewKey("acme").ID] = &short
		s.Commit()
	}},
	"no_digests_in_the_snapshot": {class: trust.ErrMalformed, do: func(s *stand) { s.Bare = true; s.Commit() }},
	"no_time":                    {class: trust.ErrMalformed, do: func(s *stand) { s.untimely("") }},
	"time_after_its_end":         {class: trust.ErrMalformed, do: func(s *stand) { s.untimely(start.Add(99 * time.Hour).Format(time.RFC3339)) }},
}

// restartNow is restart for attacks, which have no test to fail.
func (s *stand) restartNow() {
	c, err := trust.New(s.config)
	if err != nil {
		panic(err)
	}
	s.client = c
}

// untimely signs a timestamp that says another time, or none.
func (s *stand) untimely(at string) {
	s.Commit()
	s.Timestamp.Signed.Version++
	s.Timestamp.Signed.UnrecognizedFields = nil
	if at != "" {
		s.Timestamp.Signed.UnrecognizedFields = map[string]any{"issued": at}
	}
	s.Files["metadata/timestamp.json"] = updatetest.Signed(s.Timestamp, s.Keys[metadata.TIMESTAMP]...)
}

// TestAttacksAreRefused: each for the right reason, without a crash, and without harm to what comes after.
func TestAttacksAreRefused(t *testing.T) {
	t.Parallel()
	for name, a := range attacks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			if !a.fresh {
				s.want(t, acme, "acme one")
			}
			honest := maps.Clone(s.Files)
			a.do(s)
			text, err := s.newest(acme)
			if !errors.Is(err, a.class) {
				t.Fatalf("got %q, %v; want: %v", text, err, a.class)
			}
			var r *trust.Refusal
			if !errors.As(err, &r) || errors.Is(err, trust.ErrInternal) {
				t.Errorf("%v is no refusal", err)
			}
			if a.fresh || errors.Is(a.class, trust.ErrRollback) && strings.HasPrefix(name, "rollback") {
				return // nothing to go back to
			}
			// The mirror is honest again, with something newer than all that was shown.
			s.server.Idle()
			s.now, s.server.Instead = start, nil
			h := updatetest.New(start)
			h.Timestamp.Signed.Version, h.Snapshot.Signed.Version = 10, 10
			for _, role := range h.Roles {
				role.Signed.Version = 10
			}
			h.Release(acme, "3", []byte("acme three"))
			h.Commit()
			maps.Copy(honest, h.Files)
			s.Files = honest
			if name == "revoked_timestamp_key" || name == "expired_root" {
				return // what was signed cannot be unsigned: this root is real
			}
			s.client.Hurry()
			s.want(t, acme, "acme three")
		})
	}
}
