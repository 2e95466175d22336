package journal

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestEveryEditOfOneByteIsFound changes each byte of a small journal to several others.
func TestEveryEditOfOneByteIsFound(t *testing.T) {
	t.Parallel()
	dir, file, _ := small(t)
	verified(t, dir)
	whole := read(t, file)
	for i := range whole {
		for _, b := range []byte{whole[i] ^ 1, whole[i] ^ 0x20, '\n'} {
			if b == whole[i] {
				continue
			}
			edited := bytes.Clone(whole)
			edited[i] = b
			write(t, file, edited)
			r, err := Verify(dir)
			if err != nil {
				t.Fatal(err)
			}
			// Without its end the last line may still be on its way: that is said, and is no fault.
			if r.OK && (i != len(whole)-1 || r.Tail == 0) {
				t.Fatalf("byte %d changed from %q to %q is not found", i, whole[i], b)
			}
		}
	}
}

// edit applies f to the lines of a segment.
func edit(t *testing.T, file string, f func([][]byte) [][]byte) {
	t.Helper()
	l := bytes.SplitAfter(read(t, file), []byte("\n"))
	write(t, file, bytes.Join(f(l[:len(l)-1]), nil))
}

func TestEditsOfLinesAreFound(t *testing.T) {
	t.Parallel()
	_, other, _ := small(t)
	foreign := bytes.SplitAfter(read(t, other), []byte("\n"))[2]
	for _, c := range []struct {
		name string
		edit func([][]byte) [][]byte
		want string
	}{
		{"removed", func(l [][]byte) [][]byte { return slices.Delete(l, 2, 3) }, ":3: line number 3 is missing before it"},
		{"several_removed", func(l [][]byte) [][]byte { return slices.Delete(l, 2, 4) }, ":3: line numbers 3 to 4 are missing before it"},
		{"first_removed", func(l [][]byte) [][]byte { return l[1:] }, ":1: it is not the first line of this segment"},
		{"swapped", func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }, ":4: line number 3 is repeated or out of order"},
		{"repeated", func(l [][]byte) [][]byte { return slices.Insert(l, 3, l[2]) }, ":4: line number 3 is repeated or out of order"},
		{"replaced_by_another_journals", func(l [][]byte) [][]byte { l[2] = foreign; return l }, ":3: it does not follow the line before it"},
		{"inserted_text", func(l [][]byte) [][]byte { return slices.Insert(l, 3, []byte("# nothing to see\n")) }, ":4: it was changed"},
		{"emptied_line", func(l [][]byte) [][]byte { l[2] = []byte("\n"); return l }, ":3: it was changed"},
		{"all_removed", func([][]byte) [][]byte { return nil }, "it has no line"},
		{"text_after_the_end_of_a_line", func(l [][]byte) [][]byte {
			l[2] = append(bytes.TrimRight(l[2], "\n"), " \n"...)
			return l
		}, ":3: it was changed"},
		{"joined", func(l [][]byte) [][]byte { l[2] = bytes.TrimRight(l[2], "\n"); return l }, ":3: it was changed"},
		{"huge_line", func(l [][]byte) [][]byte {
			return slices.Insert(l, 3, append(bytes.Repeat([]byte("x"), 3*maxLine), '\n'))
		}, ":4: it was changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, file, _ := small(t)
			edit(t, file, c.edit)
			if got := faults(t, dir); !strings.Contains(got, c.want) {
				t.Errorf("found\n%s\nwant %q", got, c.want)
			}
		})
	}
}

// TestCutEndNeedsAnAnchor: what a chain cannot show by itself, and what a hash that was noted elsewhere shows.
func TestCutEndNeedsAnAnchor(t *testing.T) {
	t.Parallel()
	dir, file, head := small(t)
	verified(t, dir, head)
	older := lines(t, dir, "")[2].Hash
	edit(t, file, func(l [][]byte) [][]byte { return l[:len(l)-2] })
	verified(t, dir, older)
	if got := faults(t, dir, head); !strings.Contains(got, head.String()) {
		t.Errorf("found %s", got)
	}
}

// TestRewrittenChainNeedsAnAnchor: root writes the journal anew from the third line on, with all hashes right.
func TestRewrittenChainNeedsAnAnchor(t *testing.T) {
	t.Parallel()
	dir, file, head := small(t)
	all := lines(t, dir, "")
	var text []byte
	for i := range all {
		if i >= 2 {
			all[i].Fields = []byte(`{"forged":true}`)
		}
		if i > 0 {
			all[i].Prev = all[i-1].Hash
		}
		text = all[i].append(text)
	}
	write(t, file, text)
	verified(t, dir)
	faults(t, dir, head)
}

func TestVerifyWithoutAJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var empty *EmptyError
	for _, d := range []string{dir, dir + "/none"} {
		if _, err := Verify(d); !errors.As(err, &empty) {
			t.Errorf("%s: got %v", d, err)
		}
	}
}

// TestSegmentsThatAreMissing: the oldest ones make room and say so; any other that is missing is found.
func TestSegmentsThatAreMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := run(t, dir, func(c *Config) { c.MaxBytes, c.SegmentBytes = 1<<20, 2*maxLine })
	for i := range 120 {
		r.commit(KindOperator, map[string]any{"number": i, "text": strings.Repeat("x", 20_000)})
	}
	r.stop()
	report := verified(t, dir, r.Head().Hash)
	if report.Complete || report.First == 1 || report.Since.IsZero() || report.Bytes > 1<<20 || report.Segments < 4 {
		t.Fatalf("after more than it can hold: %+v", report)
	}
	if report.Seq != r.Head().Seq || report.Head != r.Head().Hash.String() {
		t.Errorf("ends at %d %s, want %+v", report.Seq, report.Head, r.Head())
	}
	list := files(t, dir)
	for _, c := range []struct {
		name string
		file string
		want string
	}{
		{"oldest", list[0], "and the agent did not remove them"},
		{"middle", list[2], "are missing before it"},
	} {
		away := c.file + ".away"
		if err := os.Rename(c.file, away); err != nil {
			t.Fatal(err)
		}
		if got := faults(t, dir); !strings.Contains(got, c.want) {
			t.Errorf("%s: found %s, want %q", c.name, got, c.want)
		}
		if err := os.Rename(away, c.file); err != nil {
			t.Fatal(err)
		}
	}
	verified(t, dir)
}
