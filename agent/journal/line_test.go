package journal

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func example() Line {
	return Line{
		Seq: 7, Time: time.Date(2026, 7, 19, 4, 9, 0, 123, time.UTC), Boot: 42, BootID: "9f", Kind: KindDeny,
		Fields: []byte(`{"path":"/tmp/\"x\" <y>"}`), Prev: Hash{1, 2},
	}
}

func TestLineIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	want := example()
	text := want.append(nil)
	got, err := ParseLine(bytes.TrimSuffix(text, []byte("\n")))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	if again := got.append(nil); !bytes.Equal(again, text) {
		t.Errorf("written again it is\n%s\nand was\n%s", again, text)
	}
}

// TestFormIsFixed: whoever verifies with a tool of their own relies on these bytes.
func TestFormIsFixed(t *testing.T) {
	t.Parallel()
	l := example()
	const want = `{"seq":7,"time":"2026-07-19T04:09:00.000000123Z","boot":42,"boot_id":"9f","kind":"deny","fields":{"path":"/tmp/\"x\" <y>"},` +
		`"prev":"0102000000000000000000000000000000000000000000000000000000000000",` +
		`"hash":"HASH"}` + "\n"
	got := l.append(nil)
	if g := bytes.Replace(got, []byte(l.Hash.String()), []byte("HASH"), 1); string(g) != want {
		t.Errorf("got  %s\nwant %s", g, want)
	}
}

func TestLineWithoutATimeThatCanBeWritten(t *testing.T) {
	t.Parallel()
	l := example()
	l.Time = time.Date(12_345, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := ParseLine(bytes.TrimSuffix(l.append(nil), []byte("\n"))); err != nil {
		t.Errorf("a clock far in the future makes a line that cannot be read: %v", err)
	}
}

func FuzzParseLine(f *testing.F) {
	l := example()
	text := bytes.TrimSuffix(l.append(nil), []byte("\n"))
	f.Add(text)
	f.Add(text[:len(text)-1])
	f.Add([]byte(nil))
	f.Add([]byte(`{"seq":1,"hash":"` + l.Hash.String() + `"}`))
	l.Fields = []byte(`{"a":{"b":[1,2,"\u0000"]}}`)
	f.Add(bytes.TrimSuffix(l.append(nil), []byte("\n")))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		l, err := ParseLine(b)
		if !bytes.Equal(before, b) {
			t.Fatal("it changed what it read")
		}
		if err != nil {
			return
		}
		if l.Seq == 0 || l.Kind == "" || len(l.Fields) == 0 {
			t.Fatalf("accepted %+v", l)
		}
		for _, i := range []int{0, len(b) / 2, len(b) - 1} {
			edited := bytes.Clone(b)
			edited[i] ^= 1
			if _, err := ParseLine(edited); err == nil {
				t.Fatalf("byte %d can be changed", i)
			}
		}
	})
}
