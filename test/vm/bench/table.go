package main

import (
	"fmt"
	"strings"

	"bailey/test/vm/bench/figure"
)

// meanings are the lanes as the table explains them.
const meanings = `none: the machine as it is; none_again: once more, later. agent_N: the agent with N products that are asked about each exec and open,
and allow; with "_cached" they let the kernel remember. agent_0 is also the guard off. guard: agent_0 with the guard. rules: agent_0 and
a product with three rules (an executable, writing below a directory, names below it), guard_rules: with the guard too. fapolicyd: one rule that
allows everything. audit_exec, audit_open: the kernel's audit with a rule for execve, then for openat too, and a reader that throws the records
away.

`

// table shows the times of none, the ratios of the rest, what was promised, and what each hook of the guard and the rules takes.
func (r *results) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What it costs in the deterministic machine\n\nLinux %s in QEMU with one processor, whose time is what it executes (2 ns each instruction); "+
		"ext4, five directories deep; %s; %s. Medians: times of none, ratios to it for the rest.", r.Kernel, r.Go, r.Fapolicyd)
	if op, part := r.noise(); op != "" {
		fmt.Fprintf(&b, " None and none_again differ by at most %.1f %% (%s).", part*100, op)
	}
	fmt.Fprintf(&b, "\n\n%s| lane | %s |\n|---|%s\n", meanings, strings.Join(figure.Operations, " | "), strings.Repeat("--:|", len(figure.Operations)))
	for _, l := range r.Lanes {
		fmt.Fprintf(&b, "| %s |", l.Name)
		for _, op := range figure.Operations {
			ratio, ok := r.ratio(l.Name, "none", op)
			switch {
			case !ok:
				b.WriteString(" |")
			case l.Name == "none":
				fmt.Fprintf(&b, " %.2f µs |", median(r.of(l.Name, op))/1000)
			default:
				fmt.Fprintf(&b, " ×%.3f |", ratio)
			}
		}
		b.WriteString("\n")
	}
	r.promised(&b)
	r.hooks(&b)
	return b.String()
}

// promised shows what the guard and the rules cost and may cost.
func (r *results) promised(b *strings.Builder) {
	head := "\n| lane | over | operation | costs | at most | kept |\n|---|---|---|--:|--:|---|\n"
	for _, p := range promises {
		v, ok := r.ratio(p.lane, p.without, p.operation)
		if !ok {
			continue
		}
		kept := "yes"
		if v > p.limit {
			kept = "no"
		}
		fmt.Fprintf(b, "%s| %s | %s | %s | %+.1f %% | %+.0f %% | %s |\n", head, p.lane, p.without, p.operation, (v-1)*100, (p.limit-1)*100, kept)
		head = ""
	}
}

// hooks shows the BPF programs that ran in the lanes with a guard or with rules, and that the lane costs more than they say: calling them
// is not in it.
func (r *results) hooks(b *strings.Builder) {
	for _, l := range r.Lanes {
		if len(l.Hooks) == 0 || l.Name != "guard" && l.Name != "guard_rules" {
			continue
		}
		fmt.Fprintf(b, "\nBPF programs in the lane %s, as the kernel counts them: its counting is in the times, calling the program is not. "+
			"process_fork, process_exec and process_exit are the process sensor's.\n\n"+
			"| operation | program | type | calls in one | ns each | of the operation |\n|---|---|---|--:|--:|--:|\n", l.Name)
		for _, op := range figure.Operations {
			own := 0.0
			for _, h := range l.Hooks[op] {
				ns := h.Calls * h.Nanoseconds
				fmt.Fprintf(b, "| %s | %s | %s | %.1f | %.0f | %.1f %% |\n", op, h.Program, h.Type, h.Calls, h.Nanoseconds, ns/median(r.of(l.Name, op))*100)
				own += ns
			}
			if ratio, ok := r.ratio(l.Name, "none", op); ok && own > 0 {
				more := median(r.of(l.Name, op)) - median(r.of("none", op))
				fmt.Fprintf(b, "| %s | all of them | | | %.0f | the lane takes %.0f ns more than none (%+.1f %%) |\n", op, own, more, (ratio-1)*100)
			}
		}
	}
}
