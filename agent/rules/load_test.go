package rules

import (
	"testing"

	"bailey/internal/bpflsm/bpflsmtest"
)

// TestEveryProgramLoads says of each program alone whether this kernel's verifier takes it.
func TestEveryProgramLoads(t *testing.T) { bpflsmtest.EachLoads(t, newBlueprint) }
