package recorder

import "slices"

// loss is what is missing and was not recorded as missing yet.
type loss struct {
	cause string
	at    uint64 // of the first
	n     uint64
}

// losses waits for a disk that takes records again. Not safe for concurrent use.
type losses struct{ list []loss }

func (l *losses) add(cause string, at, n uint64) {
	i := slices.IndexFunc(l.list, func(x loss) bool { return x.cause == cause })
	if i < 0 {
		l.list = append(l.list, loss{cause, at, n})
		return
	}
	l.list[i].n += n
}

// take returns what is owed and forgets it.
func (l *losses) take() []loss {
	list := l.list
	l.list = nil
	return list
}
