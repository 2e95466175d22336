package productv1_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	productv1 "bailey/api/product/v1"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const schemaFile = "event.schema.json"

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	s, err := c.Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readSchema(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v.(map[string]any)
}

// validate checks one event as `bailey events --json` prints it.
func validate(t *testing.T, s *jsonschema.Schema, e *productv1.Event) error {
	t.Helper()
	line, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// detailOf returns the field of Event that holds the detail of a kind.
func detailOf(kind productv1.Kind) protoreflect.Name {
	switch kind {
	case productv1.Kind_open, productv1.Kind_create, productv1.Kind_close_write, productv1.Kind_rename, productv1.Kind_unlink, productv1.Kind_attrib:
		return "file"
	}
	return protoreflect.Name(kind.String())
}

func kinds() []productv1.Kind {
	var out []productv1.Kind
	for n := range productv1.Kind_name {
		if n != 0 {
			out = append(out, productv1.Kind(n))
		}
	}
	return out
}

// fill sets every field of m to something that is not its default, three levels of messages deep.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("key").MapKey(), protoreflect.ValueOfString("value"))
		case f.IsList():
			list := m.Mutable(f).List()
			if f.Message() != nil {
				e := list.NewElement()
				fill(e.Message(), depth-1)
				list.Append(e)
				continue
			}
			list.Append(scalar(f))
		case f.Message() != nil:
			if depth > 0 {
				fill(m.Mutable(f).Message(), depth-1)
			}
		default:
			m.Set(f, scalar(f))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("text")
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1<<32 - 1)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1<<64 - 1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-1 << 31)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(-1 << 63)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0xff, 0xfe})
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	}
	panic("no scalar for " + f.Kind().String())
}

// filledEvent returns an event of kind with only its own detail, filled.
func filledEvent(kind productv1.Kind) *productv1.Event {
	e := &productv1.Event{}
	m := e.ProtoReflect()
	fill(m, 3)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Number() >= 10 && f.Name() != detailOf(kind) {
			m.Clear(f)
		}
	}
	e.Kind = kind
	return e
}

func TestFilledEventsFitTheSchema(t *testing.T) {
	t.Parallel()
	s := compileSchema(t)
	for _, k := range kinds() {
		if err := validate(t, s, filledEvent(k)); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
}

func TestMinimalEventsFitTheSchema(t *testing.T) {
	t.Parallel()
	s := compileSchema(t)
	for name, e := range map[string]*productv1.Event{
		"exec":         {Kind: productv1.Kind_exec, Seq: 1, Time: 1, Exec: &productv1.Exec{}},
		"exit_zero":    {Kind: productv1.Kind_exit, Seq: 1, Time: 1, Exit: &productv1.Exit{}},
		"unknown_file": {Kind: productv1.Kind_unlink, Seq: 1, Time: 1, File: &productv1.FileEvent{File: &productv1.File{}}},
	} {
		if err := validate(t, s, e); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaRefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	s := compileSchema(t)
	for name, line := range map[string]string{
		"no_kind":        `{"seq":"1","time":"1"}`,
		"no_detail":      `{"kind":"exec","seq":"1","time":"1"}`,
		"number_for_u64": `{"kind":"exit","seq":1,"time":"1","exit":{}}`,
		"shouted_kind":   `{"kind":"EXIT","seq":"1","time":"1","exit":{}}`,
		"negative_pid":   `{"kind":"exit","seq":"1","time":"1","exit":{},"process":{"key":{"pid":-1}}}`,
		"text_for_bool":  `{"kind":"open","seq":"1","time":"1","file":{"file":{"deleted":"yes"}}}`,
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		if s.Validate(v) == nil {
			t.Errorf("%s: %s is accepted", name, line)
		}
	}
}

// TestSchemaHasEveryField holds the additive rule: what is added to the .proto file is added to the schema in the same change.
func TestSchemaHasEveryField(t *testing.T) {
	t.Parallel()
	schema := readSchema(t)
	defs := schema["$defs"].(map[string]any)
	seen := map[protoreflect.FullName]bool{}
	var walk func(m protoreflect.MessageDescriptor, in map[string]any)
	walk = func(m protoreflect.MessageDescriptor, in map[string]any) {
		if seen[m.FullName()] {
			return
		}
		seen[m.FullName()] = true
		want, got := map[string]bool{}, map[string]bool{}
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			want[string(f.Name())] = true
			if f.Message() != nil && !f.IsMap() {
				def, ok := defs[string(f.Message().Name())].(map[string]any)
				if !ok {
					t.Errorf("the schema has no definition of %s", f.Message().Name())
					continue
				}
				walk(f.Message(), def)
			}
		}
		for name := range in["properties"].(map[string]any) {
			got[name] = true
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("fields of %s (-proto +schema):\n%s", m.Name(), d)
		}
	}
	walk((&productv1.Event{}).ProtoReflect().Descriptor(), schema)

	for name, values := range map[string]map[int32]string{"Kind": productv1.Kind_name, "Severity": productv1.Severity_name} {
		want, got := map[string]bool{}, map[string]bool{}
		for n, word := range values {
			want[word] = n != 0
		}
		for _, word := range defs[name].(map[string]any)["enum"].([]any) {
			got[word.(string)] = true
		}
		for word, listed := range want {
			if listed != got[word] {
				t.Errorf("%s %s: in the schema %v, want %v", name, word, got[word], listed)
			}
		}
	}
}
