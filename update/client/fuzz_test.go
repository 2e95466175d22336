package client

import (
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzRecord: whatever lies where a record should, reading it ends, and what it reads it writes again.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{
		``, `{}`, `{"current":{"state":"watch"}}`, `{"current":{"state":"dance"}}`, `{"current":null,"bad":{"1":"x"},"failures":["2026-11-26T12:00:00Z"]}`,
		`{"installed":"1","epoch":7,"last":{"state":"committed","offer":{"path":"acme/edr/content/1.tar.zst","length":5,"release":{"version":"1","requires":{"code":">=7 <8"}}}}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(&r)
		if err != nil {
			return // a version that is none is not written
		}
		back, err := parseRecord(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if third, err := json.Marshal(&back); err != nil || !reflect.DeepEqual(again, third) {
			t.Errorf("%s became %s: %v", again, third, err)
		}
	})
}
