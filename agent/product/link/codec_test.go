package link

import (
	"reflect"
	"testing"
	"unicode/utf8"

	"bailey/agent/event"
	productv1 "bailey/api/product/v1"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
)

// fill sets every field of v to a value of its own, so that a field that is forgotten or swapped shows.
func fill(v reflect.Value, n *uint64) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), reflect.ValueOf("value"))
	case reflect.String:
		v.SetString("s" + string(rune('a'+*n%26)) + string(rune('a'+*n/26%26)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8: // enumerations: stay within the known values
		v.SetUint(1 + *n%3)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(*n)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	default:
		panic("fill: " + v.Type().String())
	}
}

// fullEvent has the one detail named set, and everything in it.
func fullEvent(detail string) *event.Event {
	n := uint64(100)
	e := &event.Event{Kind: event.Exec, Seq: 7, Time: 8}
	fill(reflect.ValueOf(&e.Process).Elem(), &n)
	if detail != "" {
		fill(reflect.ValueOf(e).Elem().FieldByName(detail), &n)
	}
	if e.Exec != nil {
		e.Exec.Previous = e.Process.Key // not sent: it equals the process's key
	}
	return e
}

var details = []string{"Exec", "Fork", "Exit", "File", "Verdict", "Finding", "Product", "Health", "Tamper", ""}

// unset lists fields of m, at any depth, that are not set.
func unset(m protoreflect.Message, path string, skip map[string]bool, out *[]string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := path + "." + string(f.Name())
		switch {
		case skip[string(f.Name())]:
		case !m.Has(f):
			*out = append(*out, name)
		case f.IsList() && f.Message() != nil:
			for j := range m.Get(f).List().Len() {
				unset(m.Get(f).List().Get(j).Message(), name, skip, out)
			}
		case f.Message() != nil && !f.IsMap():
			unset(m.Get(f).Message(), name, skip, out)
		}
	}
}

func TestEveryFieldIsConverted(t *testing.T) {
	t.Parallel()
	for _, d := range details {
		t.Run("event_"+d, func(t *testing.T) {
			t.Parallel()
			e := fullEvent(d)
			m := EventToProto(e)
			skip := map[string]bool{"path_escaped": true}
			top := map[string]string{"Exec": "exec", "Fork": "fork", "Exit": "exit", "File": "file", "Verdict": "verdict", "Finding": "finding", "Product": "product", "Health": "health", "Tamper": "tamper"}
			var missing []string
			fields := m.ProtoReflect().Descriptor().Fields()
			for _, name := range []string{"process", top[d]} {
				f := fields.ByName(protoreflect.Name(name))
				if f != nil && !m.ProtoReflect().Has(f) {
					missing = append(missing, name)
				} else if f != nil {
					unset(m.ProtoReflect().Get(f).Message(), name, skip, &missing)
				}
			}
			if len(missing) > 0 {
				t.Errorf("fields of the schema that nobody sets: %v", missing)
			}
			if diff := cmp.Diff(e, EventFromProto(m)); diff != "" {
				t.Errorf("there and back again (-sent +received):\n%s", diff)
			}
		})
	}
}

func TestCodecEqualsTheReferenceEncoding(t *testing.T) {
	t.Parallel()
	var c Codec
	for range 2 { // the second round meets recycled memory
		for _, d := range details {
			e := fullEvent(d)
			want, err := proto.MarshalOptions{Deterministic: true}.Marshal(EventToProto(e))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.AppendEvent([]byte("prefix"), e); string(got) != "prefix"+string(want) {
				t.Errorf("%s: got %x\nwant %x", d, got[6:], want)
			}
		}
		q := fullQuestion()
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(QuestionToProto(q))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.AppendQuestion(nil, q); string(got) != string(want) {
			t.Errorf("question: got %x\nwant %x", got, want)
		}
	}
}

func fullQuestion() *event.Question {
	n := uint64(7)
	q := &event.Question{ID: 1, Kind: event.Open, Time: 99}
	fill(reflect.ValueOf(&q.Process).Elem(), &n)
	fill(reflect.ValueOf(&q.File).Elem(), &n)
	return q
}

func TestQuestionCarriesEveryField(t *testing.T) {
	t.Parallel()
	var missing []string
	unset(QuestionToProto(fullQuestion()).ProtoReflect(), "question", map[string]bool{"path_escaped": true}, &missing)
	if len(missing) > 0 {
		t.Errorf("not set: %v", missing)
	}
}

func TestNamesThatAreNotUTF8(t *testing.T) {
	t.Parallel()
	e := &event.Event{
		Kind: event.Exec, Process: &event.Process{Comm: "a\xff", Executable: event.File{Path: "/tmp/\xfe\xffx"}},
		Exec: &event.ExecDetail{Argv: []string{"ok", "b\xff", "ok", "\xc3"}, CWD: "/\xff"},
	}
	b := new(Codec).AppendEvent(nil, e)
	m := new(productv1.Event)
	if err := proto.Unmarshal(b, m); err != nil { // the strict decoder, as Python's is
		t.Fatalf("a strict decoder refuses it: %v", err)
	}
	if got, want := m.GetProcess().GetExecutable().GetPath(), "/tmp/\uFFFDx"; got != want {
		t.Errorf("path %q, want %q", got, want)
	}
	if got, want := m.GetProcess().GetExecutable().GetPathEscaped(), `/tmp/\xfe\xffx`; got != want {
		t.Errorf("escaped path %q, want %q", got, want)
	}
	if got := EventFromProto(m).Process.Executable.Path; got != "/tmp/\xfe\xffx" {
		t.Errorf("exact path %q", got)
	}
	if diff := cmp.Diff([]string{"ok", "b\uFFFD", "ok", "\uFFFD"}, m.GetExec().GetArgv()); diff != "" {
		t.Error(diff)
	}
	if e.Exec.Argv[1] != "b\xff" {
		t.Error("the event was changed")
	}
}

func TestCodecDoesNotAllocate(t *testing.T) {
	var c Codec
	e, q, v := fullEvent("Exec"), fullQuestion(), fullEvent("Verdict")
	buf := make([]byte, 0, 4096)
	n := testing.AllocsPerRun(1000, func() {
		buf = c.AppendEvent(buf[:0], e)
		buf = c.AppendQuestion(buf[:0], q)
		buf = c.AppendEvent(buf[:0], v)
	})
	if n >= 1 && !raceEnabled { // the race detector's sync.Pool forgets at random
		t.Errorf("%v allocations for two events and a question", n)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	all := event.KindsOf(event.Kinds()...)
	known, unknown := KindsFromProto(append(KindsToProto(all), 63, -1, 1000))
	if known != all {
		t.Errorf("known %v", known.List())
	}
	if diff := cmp.Diff([]productv1.Kind{63, -1, 1000}, unknown); diff != "" {
		t.Error(diff)
	}
	for _, k := range event.Kinds() {
		if productv1.Kind(k).String() != k.String() {
			t.Errorf("kind %d is %q here and %q in the schema", k, k, productv1.Kind(k))
		}
	}
}

func TestConvertedMessagesAreIndependent(t *testing.T) {
	t.Parallel()
	a, b := EventToProto(fullEvent("Exec")), EventToProto(fullEvent("Exec"))
	b.Exec.Argv = nil
	if diff := cmp.Diff(EventToProto(fullEvent("Exec")), a, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "/a", `\`, `/\xff`, "/\xff", "/\xc3\x28", "/\ufffd", `\\xzz\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := escape(s)
		if !utf8.ValidString(e) {
			t.Errorf("%q is escaped to %q, which is not UTF-8", s, e)
		}
		if got := unescape(e); got != s {
			t.Errorf("%q comes back as %q", s, got)
		}
		_ = unescape(s) // never panics
	})
}

func TestParseEventReadsWhatAppendEventWrote(t *testing.T) {
	t.Parallel()
	codec := new(Codec)
	for _, detail := range []string{"Exec", "Fork", "Exit", "File", "Verdict", "Finding", "Product", "Health"} {
		e := fullEvent(detail)
		got, err := codec.ParseEvent(codec.AppendEvent(nil, e))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(EventFromProto(EventToProto(e)), got); d != "" {
			t.Errorf("%s: %s", detail, d)
		}
	}
	if _, err := codec.ParseEvent([]byte("\xff\xff")); err == nil {
		t.Error("rubbish is an event")
	}
}

// FuzzParseEvent reads payloads that a damaged disk may hold.
func FuzzParseEvent(f *testing.F) {
	codec := new(Codec)
	for _, detail := range []string{"Exec", "Fork", "Verdict", "Finding"} {
		f.Add(codec.AppendEvent(nil, fullEvent(detail)))
	}
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := codec.ParseEvent(b)
		if err != nil {
			return
		}
		again, err := codec.ParseEvent(codec.AppendEvent(nil, e))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(codec.AppendEvent(nil, e), codec.AppendEvent(nil, again)); d != "" && (e.Finding == nil || len(e.Finding.Fields) < 2) {
			t.Fatal(d)
		}
	})
}
