package recorder

import (
	"os"
	"testing"

	"bailey/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envVictim); dir != "" {
		victim(dir)
		return
	}
	leakcheck.Main(m)
}
