package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"bailey/internal/bpflsm/bpflsmtest"
	"bailey/internal/leakcheck"
)

// helperVariable makes this test binary act as one of the programs of the tests; sceneVariable is where.
const (
	helperVariable = "BAILEY_GUARD_TEST_HELPER"
	sceneVariable  = "BAILEY_GUARD_TEST_SCENE"
)

func TestMain(m *testing.M) {
	switch name := os.Getenv(helperVariable); name {
	case "":
		leakcheck.Main(m)
	case "victim":
		exit(beVictim(sceneOfHelper()))
	case "taste": // what an attacker wants of a trusted program
		exit(os.WriteFile(sceneOfHelper().Config(), []byte("tasted"), 0o600))
	case "sleep":
		fmt.Println("ready")
		select {}
	default:
		exit(beAttacker(name, sceneOfHelper()))
	}
}

func exit(err error) {
	if errors.Is(err, errEffect) {
		fmt.Println(errEffect)
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	os.Exit(0)
}

func sceneOfHelper() *scene {
	s := new(scene)
	if err := json.Unmarshal([]byte(os.Getenv(sceneVariable)), s); err != nil {
		exit(fmt.Errorf("read the scene: %w", err))
	}
	return s
}

// What every test here says. The test process is root, and nobody trusts it.
var needsVM, refused, allowed = bpflsmtest.NeedsVM, bpflsmtest.Refused, bpflsmtest.Allowed
