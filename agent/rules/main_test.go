package rules

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"bailey/internal/bpflsm/bpflsmtest"
	"bailey/internal/leakcheck"
)

// helperVariable makes this test binary something else: "sleep" waits, "connect" connects to nobody, and what is left are the rules that
// an agent installs before it waits to be killed.
const helperVariable = "BAILEY_RULES_TEST_HELPER"

func TestMain(m *testing.M) {
	text := os.Getenv(helperVariable)
	if text == "" {
		leakcheck.Main(m)
		return
	}
	var err error
	switch text {
	case "sleep":
		time.Sleep(time.Hour) //nolint:forbidigo // until it is killed
	case "connect":
		err = connect("tcp4", "127.0.0.1:9")()
	default:
		err = beAgent(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func beAgent(text string) error {
	var rules []Rule
	if err := json.Unmarshal([]byte(text), &rules); err != nil {
		return err
	}
	r, err := New(testConfig())
	if err != nil {
		return err
	}
	r.TakeOver()
	r.SetGrants(everything())
	for _, rule := range rules {
		if _, err := r.Install(rule); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	time.Sleep(time.Hour) //nolint:forbidigo // until it is killed
	return nil
}

// What every test here says. The test process is root, and nobody trusts it.
var needsVM, refused, allowed = bpflsmtest.NeedsVM, bpflsmtest.Refused, bpflsmtest.Allowed
