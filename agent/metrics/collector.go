package metrics

import (
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// collector makes metrics of snapshots.
type collector struct {
	cfg  Config
	desc map[string]*prometheus.Desc
}

var _ prometheus.Collector = (*collector)(nil)

func newCollector(cfg Config) *collector {
	c := &collector{cfg: cfg, desc: make(map[string]*prometheus.Desc, len(table))}
	for _, m := range table {
		c.desc[m.name] = prometheus.NewDesc("bailey_"+m.name, m.help, m.labels, nil)
	}
	return c
}

// Describe sends every metric's description.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range table {
		out <- c.desc[m.name]
	}
}

// scrape is one reading of the agent.
type scrape struct {
	*collector
	Snapshot
	out chan<- prometheus.Metric
}

// Collect reads one snapshot.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := scrape{c, c.cfg.Source.Snapshot(), out}
	s.agent()
	s.questions()
	for i := range s.Products {
		s.product(&s.Products[i])
	}
	s.brakes()
	s.keeper()
	s.sensors()
}

func (s *scrape) send(name string, t prometheus.ValueType, v float64, labels ...string) {
	s.metric(name, labels, func(d *prometheus.Desc, labels []string) (prometheus.Metric, error) {
		return prometheus.NewConstMetric(d, t, v, labels...)
	})
}

// metric sends what is made. What cannot be made spoils a scrape and nothing else.
func (s *scrape) metric(name string, labels []string, f func(*prometheus.Desc, []string) (prometheus.Metric, error)) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "�")
	}
	m, err := f(s.desc[name], labels)
	if err != nil {
		m = prometheus.NewInvalidMetric(s.desc[name], err)
	}
	s.out <- m
}

func (s *scrape) count(name string, v uint64, labels ...string) {
	s.send(name, prometheus.CounterValue, float64(v), labels...)
}

func (s *scrape) gauge(name string, v float64, labels ...string) {
	s.send(name, prometheus.GaugeValue, v, labels...)
}

// counts sends one count for each key of m, in the order of the keys.
func (s *scrape) counts(name string, m map[string]uint64) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s.count(name, m[k], k)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s *scrape) agent() {
	s.gauge("build_info", 1, s.Version, s.Revision)
	s.gauge("start_time_seconds", float64(s.Started.UnixNano())/1e9)
	for _, status := range slices.Sorted(maps.Keys(s.Health)) {
		s.gauge("health_entries", float64(s.Health[status]), status)
	}
	for _, u := range s.Unwell {
		s.gauge("health_unwell", 1, u.Component, u.Status)
	}
	for _, l := range s.Lost {
		s.count("lost_total", l.Count, l.What, l.Cause)
	}
	s.count("events_published_total", s.Published)
	s.count("journal_lines_total", s.Journal.Lines)
	s.count("journal_summed_up_lines_total", s.Journal.SummedUp)
	s.gauge("journal_last_line_number", float64(s.Journal.Seq))
	s.gauge("journal_failing", truth(s.Journal.Failing))
}

func (s *scrape) questions() {
	s.counts("questions_total", s.Asked)
	for _, v := range s.Verdicts {
		word := "deny"
		if v.Allow {
			word = "allow"
		}
		s.count("verdicts_total", v.Count, v.Reason, word)
	}
	s.gauge("questions_in_flight", float64(s.InFlight))
	s.gauge("cache_entries", float64(s.Cache.Entries))
	s.gauge("cache_kernel_marks", float64(s.Cache.Marks))
	s.count("cache_hits_total", s.Cache.Hits)
	s.count("cache_misses_total", s.Cache.Misses)
	s.counts("cache_clears_total", s.Cache.Cleared)
}

// The words of a product's authority and state: each has a series, one of which is 1.
var (
	authorities = []string{"live", "shadow", "degraded", "off"}
	states      = []string{"starting", "running", "stopping", "stopped", "backoff", "failed"}
)

func (s *scrape) product(p *Product) {
	s.gauge("product_info", 1, p.Name, p.Release)
	for _, a := range authorities {
		s.gauge("product_authority", truth(p.Authority == a), p.Name, a)
	}
	for _, st := range states {
		s.gauge("product_state", truth(p.State == st), p.Name, st)
	}
	s.count("product_restarts_total", p.Restarts, p.Name)
	s.count("product_degradations_total", p.Degradations, p.Name)
	s.gauge("product_memory_bytes", float64(p.Memory), p.Name)
	s.send("product_cpu_seconds_total", prometheus.CounterValue, p.CPU.Seconds(), p.Name)
	s.count("product_questions_total", p.Live, p.Name, "live")
	s.count("product_questions_total", p.Shadow, p.Name, "shadow")
	for _, o := range slices.Sorted(maps.Keys(p.Outcomes)) {
		s.count("product_answers_total", p.Outcomes[o], p.Name, o)
	}
	s.count("product_denies_total", p.Denies, p.Name)
	s.count("product_late_answers_total", p.Late, p.Name)
	for _, said := range slices.Sorted(maps.Keys(p.Latency)) {
		s.latency(p.Latency[said], p.Name, said)
	}
	s.count("product_events_total", p.Events, p.Name)
	s.count("product_events_lost_total", p.EventsLost, p.Name)
	s.gauge("product_events_queued", float64(p.EventsQueued), p.Name)
	s.gauge("product_queued_bytes", float64(p.QueuedBytes), p.Name)
	s.gauge("product_events_unacknowledged", float64(p.EventsUnacked), p.Name)
	s.count("product_findings_total", p.Findings, p.Name)
	s.count("product_findings_lost_total", p.FindingsLost, p.Name)
	s.count("product_faults_total", p.Faults, p.Name)
}

// latency sends a histogram whose buckets are those that the engine counts in.
func (s *scrape) latency(l Latency, labels ...string) {
	buckets := map[float64]uint64{}
	var sum uint64
	for i, n := range l.Below {
		if sum += n; i < len(l.Below)-1 {
			buckets[float64(uint64(1)<<i)/1e6] = sum
		}
	}
	s.metric("product_answer_seconds", labels, func(d *prometheus.Desc, labels []string) (prometheus.Metric, error) {
		return prometheus.NewConstHistogram(d, sum, l.Sum.Seconds(), buckets, labels...)
	})
}

func (s *scrape) brakes() {
	engaged := 0
	if s.cfg.Brakes != nil {
		for _, b := range s.cfg.Brakes.Brakes() {
			if b.Engaged {
				engaged++
			}
			s.gauge("product_braked", truth(b.Engaged), b.Product)
			s.count("product_braked_denies_total", b.Denies, b.Product)
		}
	}
	s.gauge("braked_products", float64(engaged))
}

func (s *scrape) keeper() {
	var k KeeperCounts
	if s.cfg.Keeper != nil {
		k = s.cfg.Keeper.Keeper()
	}
	s.count("keeper_bypassed_questions_total", k.Bypassed)
	s.count("keeper_agent_restarts_total", k.Restarts)
	s.gauge("keeper_bypass", truth(k.Bypass))
}

func (s *scrape) sensors() {
	s.counts("file_sensor_total", s.Files.Counts)
	s.gauge("file_systems_watched", float64(s.Files.FileSystems))
	s.gauge("file_systems_uncovered", float64(s.Files.Uncovered))
	s.gauge("file_sensor_pending_questions", float64(s.Files.Pending))
	s.counts("process_sensor_total", s.Processes.Counts)
	s.gauge("process_ring_waiting_bytes", float64(s.Processes.RingWaiting))
	s.gauge("process_ring_size_bytes", float64(s.Processes.RingBytes))
}
