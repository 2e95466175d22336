package e2e

import (
	"testing"

	"bailey/test/rig"
)

// built is where the programs are.
var built string

func TestMain(m *testing.M) {
	rig.Main(m, &built, "bailey", "variant", "faulty", "allowlist", "clamav")
}

// startAgent starts an agent on a scratch filesystem with config as its TOML file.
func startAgent(t *testing.T, config string) *rig.Agent {
	t.Helper()
	return rig.Start(t, built, config)
}
