package trust

import (
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// FuzzGuard: whatever the guard lets through, go-tuf survives, as a file and as the delegator of others.
func FuzzGuard(f *testing.F) {
	for role, text := range map[string]string{
		metadata.ROOT: `{"signatures":[{"keyid":"k","sig":"00"}],"signed":{"_type":"root","consistent_snapshot":true,"expires":"2030-01-01T00:00:00Z","keys":{"k":{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"` +
			hex64 + `"}}},"roles":{"root":{"keyids":["k"],"threshold":1},"timestamp":{"keyids":["k"],"threshold":1},"snapshot":{"keyids":["k"],"threshold":1},"targets":{"keyids":["k"],"threshold":1}},"spec_version":"1.0.31","version":1}}`,
		metadata.TIMESTAMP: `{"signatures":[],"signed":{"_type":"timestamp","expires":"2030-01-01T00:00:00Z","issued":"2029-01-01T00:00:00Z","meta":{"snapshot.json":{"hashes":{"sha256":"` + hex64 + `"},"length":1,"version":1}},"spec_version":"1.0.31","version":1}}`,
		metadata.SNAPSHOT:  `{"signatures":[],"signed":{"_type":"snapshot","expires":"2030-01-01T00:00:00Z","meta":{"targets.json":{"hashes":{"sha256":"` + hex64 + `"},"length":1,"version":1}},"spec_version":"1.0.31","version":1}}`,
		metadata.TARGETS: `{"signatures":[],"signed":{"_type":"targets","delegations":{"keys":{"k":{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"` + hex64 +
			`"}}},"roles":[{"keyids":["k"],"name":"acme--edr--content","paths":["acme/edr/content/*"],"terminating":true,"threshold":1}]},"expires":"2030-01-01T00:00:00Z","spec_version":"1.0.31","targets":{},"version":1}}`,
		"acme--edr--content": `{"signatures":[],"signed":{"_type":"targets","expires":"2030-01-01T00:00:00Z","spec_version":"1.0.31","targets":{"acme/edr/content/1.tar.zst":{"custom":{"schema":1},"hashes":{"sha256":"` + hex64 + `"},"length":1}},"version":1}}`,
	} {
		if _, err := guard(role, []byte(text), HouseRules); err != nil {
			f.Fatalf("%s: %v", role, err)
		}
		f.Add(role, []byte(text))
	}
	f.Fuzz(func(t *testing.T, role string, text []byte) {
		for _, rules := range []Rules{HouseRules, SpecificationOnly} {
			if _, err := guard(role, text, rules); err == nil {
				feed(role, text)
			}
		}
	})
}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// feed does with text what go-tuf does with a file that it believes.
func feed(role string, text []byte) {
	trusted := &trustedmetadata.TrustedMetadata{Targets: map[string]*metadata.Metadata[metadata.TargetsType]{}, RefTime: time.Unix(0, 0)}
	switch role {
	case metadata.ROOT:
		root, err := metadata.Root().FromBytes(text)
		if err != nil {
			return
		}
		trusted.Root = root
		_, _ = trusted.UpdateRoot(text)
		_, _ = trusted.UpdateTimestamp([]byte(`{"signatures":[],"signed":{"_type":"timestamp","expires":"2030-01-01T00:00:00Z","meta":{"snapshot.json":{"version":1}},"spec_version":"1.0.31","version":1}}`))
	case metadata.TIMESTAMP:
		m, err := metadata.Timestamp().FromBytes(text)
		if err != nil {
			return
		}
		_ = m.Signed.Meta["snapshot.json"].VerifyLengthHashes(text)
		_ = m.Signed.Meta["snapshot.json"].Version
	case metadata.SNAPSHOT:
		m, err := metadata.Snapshot().FromBytes(text)
		if err != nil {
			return
		}
		for _, f := range m.Signed.Meta {
			_ = f.VerifyLengthHashes(text)
		}
	default:
		m, err := metadata.Targets().FromBytes(text)
		if err != nil {
			return
		}
		for _, target := range m.Signed.Targets {
			_ = target.VerifyLengthHashes(text)
		}
		if d := m.Signed.Delegations; d != nil {
			for _, r := range d.Roles {
				_ = m.VerifyDelegate(r.Name, m)
			}
			_ = d.GetRolesForTarget("acme/edr/content/1.tar.zst")
		}
	}
}
