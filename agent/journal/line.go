package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Kind says what a line is about.
type Kind string

// The kinds.
const (
	KindAgent      Kind = "agent"      // the agent started or stopped
	KindOperator   Kind = "operator"   // somebody used the control API to change something; once asked, once done
	KindInstall    Kind = "install"    // a product was installed, or another release of it
	KindRemove     Kind = "remove"     // a product was removed
	KindGrant      Kind = "grant"      // what a product may changed
	KindProduct    Kind = "product"    // a product changed its state or authority
	KindHealth     Kind = "health"     // a part of the agent degraded or recovered
	KindDeny       Kind = "deny"       // a deny that took effect
	KindOverridden Kind = "overridden" // a deny that did not count
	KindUnlock     Kind = "unlock"     // a token was accepted or refused, or what it allowed is over; and a start without the guard
	KindRule       Kind = "rule"       // a rule in the kernel was installed, refused, renewed, taken over, or ended
	KindUpdate     Kind = "update"     // a release went a step on its way, or back
	KindBoot       Kind = "boot"       // the machine booted: how it ended before, and what follows

	KindSegment Kind = "segment" // the first line of a segment
	KindDropped Kind = "dropped" // old segments made room
	KindLost    Kind = "lost"    // lines that could not be written, counted
)

// Kinds lists every kind.
func Kinds() []Kind {
	return []Kind{
		KindAgent, KindOperator, KindInstall, KindRemove, KindGrant, KindProduct, KindHealth, KindDeny, KindOverridden, KindUnlock, KindRule, KindUpdate, KindBoot,
		KindSegment, KindDropped, KindLost,
	}
}

// Hash is the SHA-256 of a line. The zero Hash stands before the first line of all.
type Hash [sha256.Size]byte

// String returns the hash in lower-case hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String writes, and nothing else.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if hex.DecodedLen(len(s)) != len(h) {
		return h, fmt.Errorf("%q is no SHA-256: it has %d characters, not %d", s, len(s), hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil || h.String() != s {
		return Hash{}, fmt.Errorf("%q is no SHA-256 in lower-case hex", s)
	}
	return h, nil
}

// Line is one line of the journal.
type Line struct {
	Seq    uint64
	Time   time.Time
	Boot   uint64 // nanoseconds since boot (CLOCK_BOOTTIME)
	BootID string // which boot
	Kind   Kind
	Fields json.RawMessage // an object
	Prev   Hash
	Hash   Hash
}

const (
	maxLine   = 64 << 10 // a line with its end
	maxSeq    = 1 << 62
	hashStart = `,"hash":"`
	hashEnd   = `"}`
	hashPart  = len(hashStart) + 2*sha256.Size + len(hashEnd)
)

// append appends the line with its end to dst and sets l.Hash.
func (l *Line) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, l.Seq, 10)
	dst = append(dst, `,"time":"`...)
	dst = writable(l.Time).AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","boot":`...)
	dst = strconv.AppendUint(dst, l.Boot, 10)
	dst = append(dst, `,"boot_id":`...)
	dst = append(dst, quote(l.BootID)...)
	dst = append(dst, `,"kind":`...)
	dst = append(dst, quote(string(l.Kind))...)
	dst = append(dst, `,"fields":`...)
	dst = append(dst, l.Fields...)
	dst = append(dst, `,"prev":"`...)
	dst = hex.AppendEncode(dst, l.Prev[:])
	dst = append(dst, '"')
	l.Hash = sha256.Sum256(dst[start:])
	dst = append(dst, hashStart...)
	dst = hex.AppendEncode(dst, l.Hash[:])
	return append(dst, hashEnd+"\n"...)
}

// writable is t where RFC 3339 has a form for it. Clocks are set to anything.
func writable(t time.Time) time.Time {
	if t = t.UTC(); t.Year() < 0 || t.Year() > 9999 {
		return time.Unix(0, 0).UTC()
	}
	return t
}

// quote returns s as a JSON string.
func quote(s string) []byte {
	b, err := encode(s)
	if err != nil {
		return []byte(`""`) // unreachable: a string can be encoded
	}
	return b
}

// encode is json.Marshal without the escapes that are meant for web pages.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// What is wrong with a line that cannot be read.
var (
	errForm = errors.New("it does not have the form of a line")
	errHash = errors.New("its hash is not that of its text")
)

// ParseLine reads one line, given without its end, and checks that its hash is that of its very bytes.
func ParseLine(b []byte) (Line, error) {
	if len(b) <= hashPart || len(b) >= maxLine {
		return Line{}, errForm
	}
	text, end := b[:len(b)-hashPart], b[len(b)-hashPart:]
	if string(end[:len(hashStart)]) != hashStart || string(end[hashPart-len(hashEnd):]) != hashEnd {
		return Line{}, errForm
	}
	l := Line{Hash: sha256.Sum256(text)}
	if l.Hash.String() != string(end[len(hashStart):hashPart-len(hashEnd)]) {
		return Line{}, errHash
	}
	var parts struct {
		Seq    uint64          `json:"seq"`
		Time   time.Time       `json:"time"`
		Boot   uint64          `json:"boot"`
		BootID string          `json:"boot_id"`
		Kind   Kind            `json:"kind"`
		Fields json.RawMessage `json:"fields"`
		Prev   string          `json:"prev"`
	}
	if err := json.Unmarshal(append(bytes.Clone(text), '}'), &parts); err != nil {
		return Line{}, fmt.Errorf("%w: %w", errForm, err)
	}
	prev, err := ParseHash(parts.Prev)
	if err != nil || parts.Seq == 0 || parts.Seq > maxSeq || parts.Kind == "" || len(parts.Fields) == 0 || parts.Fields[0] != '{' {
		return Line{}, errForm
	}
	l.Seq, l.Time, l.Boot, l.BootID, l.Kind, l.Fields, l.Prev = parts.Seq, parts.Time, parts.Boot, parts.BootID, parts.Kind, parts.Fields, prev
	return l, nil
}

// Decode reads the line's fields into v.
func (l *Line) Decode(v any) error {
	if err := json.Unmarshal(l.Fields, v); err != nil {
		return fmt.Errorf("read the fields of line %d: %w", l.Seq, err)
	}
	return nil
}
