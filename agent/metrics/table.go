package metrics

// table lists every metric, without the prefix bailey_: the page of what there is.
var table = []struct {
	name, help string
	labels     []string
}{
	{"build_info", "Which agent this is; always 1.", []string{"version", "revision"}},
	{"start_time_seconds", "When the agent started, since the epoch.", nil},
	{"health_entries", "Health entries by status.", []string{"status"}},
	{"health_unwell", "1 for each part of the agent that is degraded or failed.", []string{"component", "status"}},
	{"lost_total", "What was lost, by cause: events, questions, log lines, journal lines.", []string{"what", "cause"}},
	{"events_published_total", "Events that the agent numbered.", nil},

	{"questions_total", "Questions that the kernel asked, by kind.", []string{"kind"}},
	{"verdicts_total", "Answers to the kernel, by who or what decided.", []string{"reason", "verdict"}},
	{"questions_in_flight", "Questions that wait now.", nil},
	{"cache_entries", "Verdicts that the agent remembers.", nil},
	{"cache_kernel_marks", "Ignore marks that the kernel holds, as far as is known.", nil},
	{"cache_hits_total", "Questions answered from the agent's own cache; those that the kernel did not ask are not counted by anybody.", nil},
	{"cache_misses_total", "Questions that the agent's own cache could not answer.", nil},
	{"cache_clears_total", "Times that all verdicts were forgotten, by cause.", []string{"cause"}},

	{"product_info", "Which release of a product is installed; always 1.", []string{"product", "release"}},
	{"product_authority", "1 for the authority that a product's answers have now.", []string{"product", "authority"}},
	{"product_state", "1 for the state that a product is in now.", []string{"product", "state"}},
	{"product_restarts_total", "Times that a product was started again.", []string{"product"}},
	{"product_degradations_total", "Times that a product was degraded.", []string{"product"}},
	{"product_memory_bytes", "Memory that a product uses.", []string{"product"}},
	{"product_cpu_seconds_total", "Processor time of a product's present run.", []string{"product"}},
	{"product_questions_total", "Questions that a product was asked, and whether they waited for it.", []string{"product", "authority"}},
	{"product_answers_total", "What became of the questions that a product was asked.", []string{"product", "outcome"}},
	{"product_denies_total", "Denies of a product, those that did not count included.", []string{"product"}},
	{"product_late_answers_total", "Answers that came after their miss was counted.", []string{"product"}},
	{"product_answer_seconds", "How long a product took to answer, by what it said: allow, deny, or a deny that is overridden.", []string{"product", "answer"}},
	{"product_events_total", "Events sent to a product.", []string{"product"}},
	{"product_events_lost_total", "Events that a product was too slow for; each was announced to it.", []string{"product"}},
	{"product_events_queued", "Events that wait for a product.", []string{"product"}},
	{"product_queued_bytes", "Their size.", []string{"product"}},
	{"product_events_unacknowledged", "Events sent to a product and not yet acknowledged.", []string{"product"}},
	{"product_findings_total", "Findings of a product.", []string{"product"}},
	{"product_findings_lost_total", "Findings beyond a product's rate.", []string{"product"}},
	{"product_faults_total", "Breaches of the protocol by a product.", []string{"product"}},
	{"braked_products", "Products whose denies do not count because there were too many.", nil},
	{"product_braked", "1 while a product is braked.", []string{"product"}},
	{"product_braked_denies_total", "Denies of a braked product, which do not count.", []string{"product"}},

	{"keeper_bypassed_questions_total", "Questions that the keeper answered in the agent's place.", nil},
	{"keeper_agent_restarts_total", "Times that the keeper started the agent again.", nil},
	{"keeper_bypass", "1 while the keeper answers in the agent's place.", nil},

	{"file_sensor_total", "Counts of the file sensor.", []string{"count"}},
	{"file_systems_watched", "File systems that carry marks.", nil},
	{"file_systems_uncovered", "Local file systems that could not be marked.", nil},
	{"file_sensor_pending_questions", "Questions read from the kernel and not yet given back.", nil},
	{"process_sensor_total", "Counts of the process sensor.", []string{"count"}},
	{"process_ring_waiting_bytes", "Bytes in the process sensor's ring buffer that wait to be read.", nil},
	{"process_ring_size_bytes", "Bytes that the process sensor's ring buffer holds; 0 without BPF.", nil},

	{"journal_lines_total", "Lines written to the journal.", nil},
	{"journal_summed_up_lines_total", "Lines that were counted instead of written because there were too many of a kind.", nil},
	{"journal_last_line_number", "The number of the journal's last line.", nil},
	{"journal_failing", "1 while the journal cannot be written.", nil},
}
