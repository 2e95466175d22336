package strictjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"bailey/internal/strictjson"
)

func limits() strictjson.Limits { return strictjson.Limits{Bytes: 4096, Depth: 4, Values: 100} }

func TestCheckAccepts(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `[]`, `"x"`, `true`, ` 7 `, `{"a":[{"b":{"c":1}}],"d":-9223372036854775808,"e":9223372036854775807}`, `{"a":{"x":1},"b":{"x":1}}`,
	} {
		if err := strictjson.Check([]byte(text), limits()); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty": "", "null": `null`, "null_inside": `{"a":[null]}`, "float": `{"a":1.0}`, "exponent": `[1e3]`, "large": `[9223372036854775808]`,
		"minus_zero": `[-0]`, "duplicate": `{"a":1,"a":2}`, "folded": `{"signed":1,"Signed":2}`, "long_s": "{\"signed\":1,\"\u017figned\":2}",
		"kelvin": "{\"key\":1,\"\u212aey\":2}", "escaped": `{"a":1,"\u0061":2}`, "utf8": "{\"a\":\"\xff\"}", "trailing": `{} {}`, "trailing_text": `{}x`,
		"cut": `{"a":`, "cut_array": `[1,`, "comma": `[1,]`, "no_colon": `{"a" 1}`, "bracket": `[}`, "close": `]`, "comment": `/**/{}`, "nan": `NaN`,
	} {
		if err := strictjson.Check([]byte(text), limits()); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	for name, text := range map[string]string{
		"bytes": `"` + strings.Repeat("a", 4096) + `"`, "depth": `[[[[[]]]]]`, "values": "[" + strings.Repeat("1,", 200) + "1]",
	} {
		if err := strictjson.Check([]byte(text), limits()); !errors.Is(err, strictjson.ErrSize) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnmarshalWantsEveryName(t *testing.T) {
	t.Parallel()
	var v struct {
		A int `json:"a"`
	}
	if err := strictjson.Unmarshal([]byte(`{"a":1,"b":2}`), limits(), &v); err == nil {
		t.Error("an unknown name is accepted")
	}
	if err := strictjson.Unmarshal([]byte(`{"a":1}`), limits(), &v); err != nil || v.A != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

// FuzzCheck: what is accepted is JSON, has no null and no fraction, and comes out of a map as many names as went in.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{`{"a":[1,{"b":"c"}],"d":true}`, `{"signed":1,"Signed":2}`, `[null]`, `1e5`, "\"\xff\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if strictjson.Check(text, strictjson.Limits{Bytes: 1 << 16}) != nil {
			return
		}
		var v any
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%q is accepted, and %v", text, err)
		}
		plain(t, v)
	})
}

func plain(t *testing.T, v any) {
	t.Helper()
	switch v := v.(type) {
	case nil:
		t.Fatal("null")
	case json.Number:
		if _, err := v.Int64(); err != nil {
			t.Fatal(err)
		}
	case []any:
		for _, e := range v {
			plain(t, e)
		}
	case map[string]any:
		for a, e := range v {
			for b := range v {
				if a != b && strings.EqualFold(a, b) {
					t.Fatalf("%q and %q", a, b)
				}
			}
			plain(t, e)
		}
	}
}
