package productv1

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func TestHeaderIsWhatTheDocumentSays(t *testing.T) {
	t.Parallel()
	h := Header{Length: 0x01020304, Kind: 0x0506, Flags: 0x0708, ID: 0x1112131415161718, Seq: 0x2122232425262728, Deadline: 0x3132333435363738}
	var b [HeaderSize]byte
	h.Put(b[:])
	want := "04030201" + "0605" + "0807" + "1817161514131211" + "2827262524232221" + "3837363534333231"
	if got := hex.EncodeToString(b[:]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	frame := func(kind FrameKind, payload string) []byte {
		h := Header{Length: uint32(HeaderSize + len(payload)), Kind: kind, ID: 7}
		b := make([]byte, HeaderSize)
		h.Put(b)
		return append(b, payload...)
	}
	with := func(b []byte, length byte) []byte { b[0] = length; return b }
	tests := map[string]struct {
		b       []byte
		payload string
		rest    int
		err     bool
	}{
		"empty":              {b: nil, err: true},
		"half_a_header":      {b: make([]byte, HeaderSize-1), err: true},
		"header_only":        {b: frame(FrameAnswer, "")},
		"payload":            {b: frame(FrameEvent, "abc"), payload: "abc"},
		"two_frames":         {b: append(frame(FrameEvent, "abc"), frame(FrameEvent, "de")...), payload: "abc", rest: HeaderSize + 2},
		"length_zero":        {b: with(frame(FrameEvent, ""), 0), err: true},
		"length_below":       {b: with(frame(FrameEvent, ""), HeaderSize-1), err: true},
		"length_beyond_data": {b: with(frame(FrameEvent, ""), HeaderSize+1), err: true},
		"largest":            {b: frame(FrameEvent, strings.Repeat("x", MaxFrame-HeaderSize)), payload: strings.Repeat("x", MaxFrame-HeaderSize)},
		"too_large":          {b: frame(FrameEvent, strings.Repeat("x", MaxFrame-HeaderSize+1)), err: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, payload, rest, err := Next(tt.b)
			if errors.Is(err, ErrFrame) != tt.err {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			if string(payload) != tt.payload || len(rest) != tt.rest || h.ID != 7 {
				t.Errorf("payload of %d bytes, rest of %d, header %+v", len(payload), len(rest), h)
			}
		})
	}
}

// The worked example of docs/protocol.md is decoded and compared with what the code makes of the same values.
func TestTheDocumentsExample(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := hexBlocks(t, string(doc))
	if len(examples) != 2 {
		t.Fatalf("%d hex examples in docs/protocol.md, expected the question and its answer", len(examples))
	}

	h, payload, rest, err := Next(examples[0])
	if err != nil || len(rest) != 0 {
		t.Fatalf("question: %v, %d bytes left", err, len(rest))
	}
	if diff := cmp.Diff(Header{Length: uint32(len(examples[0])), Kind: FrameQuestion, Flags: FlagCritical, ID: 258, Seq: 3, Deadline: 86_400_400_000_000}, h); diff != "" {
		t.Errorf("question's header: %s", diff)
	}
	want := &Question{
		Kind: Kind_exec, Time: 86_400_000_000_000,
		Process: &Process{Key: &ProcessKey{Pid: 300, Start: 86_399_990_000_000}, Comm: "sh", Executable: &File{Path: "/bin/dash"}},
		File:    &File{Path: "/tmp/x", Ino: 77, Size: 5, Mode: 0o100755},
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, payload) {
		t.Errorf("question's payload:\n document %x\n code     %x", payload, b)
	}

	answer := Header{Length: HeaderSize, Kind: FrameAnswer, Flags: FlagDeny | FlagCacheFile, ID: 258, Seq: 3}
	var ab [HeaderSize]byte
	answer.Put(ab[:])
	if !bytes.Equal(ab[:], examples[1]) {
		t.Errorf("answer:\n document %x\n code     %x", examples[1], ab)
	}
}

// hexBlocks returns the bytes of every ```hex block; what follows # on a line is comment.
func hexBlocks(t *testing.T, doc string) [][]byte {
	t.Helper()
	var out [][]byte
	for _, part := range strings.Split(doc, "```hex\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		var digits strings.Builder
		for _, line := range strings.Split(block, "\n") {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.ReplaceAll(line, " ", ""))
		}
		b, err := hex.DecodeString(digits.String())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// The document names every kind, every flag and every size with its number.
func TestTheDocumentNamesEveryNumber(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"| 1 | Welcome |", "| 2 | Subscribed |", "| 3 | Question |", "| 4 | Event |", "| 5 | Lost |", "| 6 | State |",
		"| 7 | Stop |", "| 8 | Withdrawn |", "| 9 | Resume |",
		"| 64 | Subscribe |", "| 65 | Answer |", "| 66 | Extend |", "| 67 | Finding |",
		"| 68 | Ack |", "| 127 | Unsupported |", "| 0x0001 | deny |", "| 0x0002 | cache_file |", "| 0x0004 | shadow |",
		"| 0x0008 | critical |", "65,536", "32,768", "16,384",
	} {
		if !strings.Contains(string(doc), row) {
			t.Errorf("docs/protocol.md does not say %q", row)
		}
	}
}

// A recycled message keeps a bytes field's capacity, which after UnmarshalVTUnsafe is the receive buffer: the next safe
// decoding would write into it.
func TestRecycledMessagesHaveNoBytesField(t *testing.T) {
	t.Parallel()
	seen := map[protoreflect.FullName]bool{}
	var walk func(protoreflect.MessageDescriptor)
	walk = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] {
			return
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if f.Kind() == protoreflect.BytesKind {
				t.Errorf("%s is a bytes field", f.FullName())
			}
			if f.Message() != nil {
				walk(f.Message())
			}
		}
	}
	walk((&Event{}).ProtoReflect().Descriptor())
	walk((&Question{}).ProtoReflect().Descriptor())
}

func FuzzNext(f *testing.F) {
	h := Header{Length: HeaderSize + 2, Kind: FrameEvent}
	b := make([]byte, HeaderSize)
	h.Put(b)
	f.Add([]byte{})
	f.Add(b)
	f.Add(append(bytes.Clone(b), "ab"...))
	f.Add(append(append(bytes.Clone(b), "ab"...), b...))
	f.Add(bytes.Repeat([]byte{0xff}, HeaderSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; ; {
			h, payload, next, err := Next(rest)
			if err != nil {
				if !errors.Is(err, ErrFrame) {
					t.Fatalf("error of another class: %v", err)
				}
				return
			}
			if len(payload)+HeaderSize+len(next) != len(rest) || int(h.Length) != len(payload)+HeaderSize {
				t.Fatalf("bytes are lost: %d of payload and %d after it from %d", len(payload), len(next), len(rest))
			}
			var again [HeaderSize]byte
			h.Put(again[:])
			if !bytes.Equal(again[:], rest[:HeaderSize]) {
				t.Fatal("the header does not come back")
			}
			rest = next
		}
	})
}

// message is what the generated code offers for every payload.
type message interface {
	proto.Message
	UnmarshalVT([]byte) error
	UnmarshalVTUnsafe([]byte) error
	MarshalVT() ([]byte, error)
}

// FuzzPayloads decodes every payload as both ends do. What both decoders accept they must understand alike: else agent and
// product would judge different files.
func FuzzPayloads(f *testing.F) {
	makers := []func() message{
		func() message { return new(Event) }, func() message { return new(Question) }, func() message { return new(Welcome) },
		func() message { return new(Subscribed) }, func() message { return new(Lost) }, func() message { return new(State) },
		func() message { return new(Subscribe) }, func() message { return new(Finding) }, func() message { return new(Unsupported) },
	}
	seeds := []message{
		&Event{Kind: Kind_exec, Process: &Process{Key: &ProcessKey{Pid: 1}, Executable: &File{Path: "/x"}}, Exec: &Exec{Argv: []string{"a", ""}}},
		&Question{Kind: Kind_open, File: &File{Path: "/x", Ctime: -1}},
		&Welcome{Protocol: 1, Deadlines: map[string]uint64{"exec": 5}, Settings: map[string]string{"a": "b"}, Grants: &Grants{See: []string{"exec"}}},
		&Subscribed{Events: []Kind{1, 4}, Refused: []string{"open"}}, &Lost{From: 1, To: 2, Cause: "full"}, &State{Authority: "live"},
		&Subscribe{Events: []Kind{1}, MutePaths: []string{"/proc"}, Resume: true, Resumed: 9, LastSeq: 1 << 40, LastQuestionSeq: 7}, &Finding{Rule: "r", Fields: map[string]string{"k": "v"}}, &Unsupported{FrameKind: 9},
	}
	for i, m := range seeds {
		b, err := m.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
		f.Add(uint8(i), b[:len(b)-1])
	}
	f.Add(uint8(0), []byte{0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		if len(b) > MaxFrame-HeaderSize {
			return
		}
		mk := makers[int(which)%len(makers)]
		safe, unsafe := mk(), mk()
		errSafe, errUnsafe := safe.UnmarshalVT(b), unsafe.UnmarshalVTUnsafe(bytes.Clone(b))
		if (errSafe == nil) != (errUnsafe == nil) {
			t.Fatalf("one decoder says %v, the other %v", errSafe, errUnsafe)
		}
		if errSafe != nil {
			return
		}
		if !proto.Equal(safe, unsafe) {
			t.Fatalf("decoded differently:\n%v\n%v", safe, unsafe)
		}
		if _, err := safe.MarshalVT(); err != nil {
			t.Fatalf("cannot be encoded again: %v", err)
		}
	})
}
