package sealedkey

import (
	"strings"
	"testing"
)

// FuzzParse: no panic, and nothing is accepted whose passphrase would cost more than this program asks for, or that cannot be opened safely.
func FuzzParse(f *testing.F) {
	const kind = "a key of the tests"
	good := `{"kind":"a key of the tests","version":1,"public":"x","kdf":"argon2id","cost":{"time":1,"memory_kib":8192,"threads":1},"salt":"AAAAAAAAAAAAAAAAAAAAAA==","cipher":"aes-256-gcm","nonce":"AAAAAAAAAAAAAAAA","sealed":""}`
	if _, err := Parse([]byte(good), kind); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, "8192", "99999999", 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text, kind)
		if err != nil {
			return
		}
		if s.file.Cost.check() != nil || len(s.file.Salt) != saltSize || len(s.file.Nonce) != 12 || s.file.Kind != kind {
			t.Fatalf("%+v", s.file)
		}
	})
}
