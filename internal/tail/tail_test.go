package tail

import (
	"fmt"
	"strings"
	"testing"
)

func TestTheEndIsKept(t *testing.T) {
	var b Buffer
	for i := range 10_000 {
		if n, err := fmt.Fprintf(&b, "line %d\n", i); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if s := b.String(); !strings.HasSuffix(s, "\nline 9999") || len(s) > Size || len(s) < Size-20 {
		t.Errorf("%d bytes are kept, the end of them %q", len(s), s[max(0, len(s)-40):])
	}
	big := strings.Repeat("x", 3*Size) + "end"
	if n, err := b.Write([]byte(big)); n != len(big) || err != nil {
		t.Error(n, err)
	}
	if s := b.String(); s != big[len(big)-Size:] {
		t.Errorf("of one long text %d bytes are kept", len(s))
	}
}
