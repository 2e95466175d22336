package cli

import (
	"strings"
	"time"

	controlv1 "bailey/api/control/v1"
)

// topRates are what happened between two looks at an agent.
type topRates struct {
	questions, hits float64 // a second
	p50, p99        time.Duration
	lost            uint64 // since the agent's start
	products        []topProduct
}

// topProduct is a line of the products' table.
type topProduct struct {
	*controlv1.Product
	questions float64 // a second
	denies    uint64  // in all
	p50, p99  time.Duration
	cpu       float64 // processors
}

// ratesOf compares two looks; before is nil at the first one and when another agent answered.
func ratesOf(before, now *topStatus) topRates {
	var seconds float64
	was := map[string]*controlv1.Product{}
	if before != nil && before.status != nil && before.status.GetPid() == now.status.GetPid() && before.status.GetStarted() == now.status.GetStarted() {
		seconds = now.at.Sub(before.at).Seconds()
		for _, p := range before.status.GetProducts() {
			was[p.GetName()] = p
		}
	} else {
		before = &topStatus{}
	}
	s := now.status
	r := topRates{
		questions: perSecond(before.status.GetQuestions().GetAsked(), s.GetQuestions().GetAsked(), seconds),
		hits:      perSecond(before.status.GetCache().GetHits(), s.GetCache().GetHits(), seconds),
		lost:      allLost(s),
	}
	var all []uint64
	for _, p := range s.GetProducts() {
		c, old := p.GetCounters(), was[p.GetName()].GetCounters()
		buckets := difference(old.GetLatencyBuckets(), c.GetLatencyBuckets())
		all = sum(all, buckets)
		t := topProduct{
			Product: p, questions: perSecond(old.GetQuestions(), c.GetQuestions(), seconds), denies: c.GetDenies(),
			p50: quantile(buckets, 0.5), p99: quantile(buckets, 0.99),
		}
		if was[p.GetName()].GetPid() == p.GetPid() {
			t.cpu = perSecond(old.GetCpu(), c.GetCpu(), seconds) / 1e9
		}
		r.products = append(r.products, t)
	}
	r.p50, r.p99 = quantile(all, 0.5), quantile(all, 0.99)
	return r
}

// perSecond is the growth of a counter; one that began anew grew from zero.
func perSecond(before, now uint64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	if now < before {
		before = 0
	}
	return float64(now-before) / seconds
}

// allLost sums up what the agent says it lost, wherever.
func allLost(s *controlv1.StatusResponse) uint64 {
	n := s.GetJournal().GetLost()
	for _, p := range s.GetProducts() {
		n += p.GetCounters().GetLost()
	}
	for _, sensor := range s.GetSensors() {
		for name, count := range sensor.GetCounters() {
			if strings.HasPrefix(name, "lost.") || name == "events.lost" || name == "overflow" || name == "dropped" {
				n += count
			}
		}
	}
	return n
}

// difference is what came into the buckets; those that began anew are taken as they are.
func difference(before, now []uint64) []uint64 {
	out := make([]uint64, len(now))
	for i, n := range now {
		out[i] = n
		if i < len(before) {
			if before[i] > n {
				return now
			}
			out[i] -= before[i]
		}
	}
	return out
}

func sum(a, b []uint64) []uint64 {
	if len(a) < len(b) {
		a = append(a, make([]uint64, len(b)-len(a))...)
	}
	for i, n := range b {
		a[i] += n
	}
	return a
}

// quantile is an upper bound of a part of the latencies, 0 if there are none.
func quantile(buckets []uint64, part float64) time.Duration {
	var all, n uint64
	for _, b := range buckets {
		all += b
	}
	if all == 0 {
		return 0
	}
	for i, b := range buckets {
		if n += b; float64(n) >= part*float64(all) {
			return time.Microsecond << i
		}
	}
	return 0
}
