package hub

import (
	"slices"

	"bailey/agent/event"
	"bailey/internal/pathname"
)

// book is an immutable snapshot of who is attached and subscribed to what.
type book struct {
	clients [event.MaxProducts]*Client
	taps    []*Tap
	voters  map[event.Kind]*event.Voters
	events  event.KindSet // wanted by any client or tap
	heard   event.KindSet // those, and what passive taps listen to

	// scopes of the clients for open, by number; nil for those that see it all.
	scopes   [event.MaxProducts][]string
	unscoped event.ProductSet // voters on open without a scope to check
}

// rewrite makes the next book from a copy of this one. Caller holds order.
func (h *Hub) rewrite(edit func(*book)) {
	old := h.book.Load()
	b := &book{clients: old.clients, taps: slices.Clone(old.taps), voters: make(map[event.Kind]*event.Voters)}
	edit(b)
	for _, t := range b.taps {
		b.heard |= t.kinds
		if !t.passive {
			b.events |= t.kinds
		}
	}
	for i, c := range b.clients {
		if c == nil {
			continue
		}
		sub := c.sub.Load()
		b.events |= sub.events
		m := c.member.Load()
		_, braked := h.braked[m.Name]
		for _, k := range sub.questions.List() {
			b.vote(k, i, m, braked)
		}
		b.scopes[i] = m.OpenScope
		if slices.Contains(m.OpenScope, "/") {
			b.unscoped |= event.ProductBit(i)
		}
	}
	b.heard |= b.events
	h.book.Store(b)
}

func (b *book) vote(k event.Kind, i int, m *Member, braked bool) {
	v := b.voters[k]
	if v == nil {
		v = &event.Voters{Owner: b}
		b.voters[k] = v
	}
	p := event.ProductBit(i)
	v.Names[i] = m.Name
	if m.Shadow {
		v.Shadow |= p
	} else {
		v.Live |= p
	}
	if m.Deny && braked && !m.Shadow {
		v.Braked |= p
		return
	}
	if m.Deny {
		v.MayDeny |= p
		if m.DenyCritical {
			v.MayDenyCritical |= p
		}
		if m.MissDenies {
			v.MissDenies |= p
		}
	}
}

// wanted returns the union of all subscriptions.
func (b *book) wanted() wanted {
	w := wanted{events: b.events}
	for k := range b.voters {
		w.questions |= event.KindsOf(k)
	}
	if v := b.voters[event.Open]; v != nil {
		for ps := v.Live | v.Shadow; ps != 0; ps &= ps - 1 {
			w.scope = append(w.scope, b.scopes[ps.First()]...)
		}
		slices.Sort(w.scope)
		w.scope = slices.Compact(w.scope)
	}
	return w
}

// Voters returns the products to ask about q and those of them that have its file in their scope.
func (h *Hub) Voters(q *event.Question) (*event.Voters, event.ProductSet) {
	b := h.book.Load()
	v := b.voters[q.Kind]
	if v == nil {
		return nil, 0
	}
	if q.Kind != event.Open {
		return v, ^event.ProductSet(0)
	}
	within := b.unscoped
	for ps := (v.Live | v.Shadow) &^ within; ps != 0; ps &= ps - 1 {
		i := ps.First()
		if underAny(q.File.Path, b.scopes[i]) {
			within |= event.ProductBit(i)
		}
	}
	return v, within
}

// underAny reports whether path is one of the prefixes or below one.
func underAny(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if pathname.Below(path, p) {
			return true
		}
	}
	return false
}
