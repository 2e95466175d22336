package verdict

import (
	"testing"

	"bailey/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }
