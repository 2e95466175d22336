// Package tail keeps the end of what a program says, for the case that something fails.
package tail

import (
	"strings"
	"sync"
)

// Size is how many bytes are kept.
const Size = 2 << 10

// Buffer is a writer that keeps the end of what was written. The zero value is empty. Safe for concurrent use.
type Buffer struct {
	mu   sync.Mutex
	text []byte
}

// Write never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	if cut := len(b.text) - Size; cut > 0 {
		b.text = append(b.text[:0], b.text[cut:]...)
	}
	return len(p), nil
}

// String returns it, without space around it.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(string(b.text))
}
