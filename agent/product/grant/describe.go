package grant

import (
	"fmt"
	"strings"
)

// Describe says in plain words what items let a product do, one sentence fragment each, the far-reaching ones first. A
// human reads it before approving, so nothing is left out.
func Describe(items []string) []string {
	var decide, deny, see, paths, consume []string
	for _, it := range items {
		word, value, _ := strings.Cut(it, ":")
		switch word {
		case "decide":
			decide = append(decide, decideWords(value))
		case "deny":
			deny = append(deny, "deny: whatever it denies does not happen")
		case "deny_critical":
			deny = append(deny, "deny even the files this system needs to start and to be repaired (a fault in the product can make the machine unusable)")
		case "on_miss":
			deny = append(deny, "have everything denied that it does not answer in time (a slow or crashing product stops programs from starting, until it is degraded or off)")
		case "deny_files":
			deny = append(deny, fmt.Sprintf("deny up to %s different files within a minute before it is braked", value))
		case "deny_package_files":
			deny = append(deny, fmt.Sprintf("deny up to %s different files of packages within a minute before it is braked", value))
		case "rule":
			deny = append(deny, ruleWords(value))
		case "live":
			deny = append(deny, "have its answers count from the start (without this they are only recorded)")
		case "see":
			see = append(see, value)
		case "daemon":
			paths = append(paths, fmt.Sprintf("have %s never asked about, because its answers depend on it", value))
		case "scope":
			paths = append(paths, fmt.Sprintf("be asked about opens below %s", value))
		case "read":
			paths = append(paths, fmt.Sprintf("read %s, as far as the files' modes let everyone", value))
		case "connect":
			paths = append(paths, fmt.Sprintf("connect to the unix socket %s", value))
		default:
			consume = append(consume, consumeWords(word, value))
		}
	}
	out := append(decide, deny...)
	if len(see) > 0 {
		out = append(out, "see these events of every process: "+strings.Join(see, ", "))
	}
	out = append(out, paths...)
	if len(consume) > 0 {
		out = append(out, "use up to "+strings.Join(consume, ", "))
	}
	return out
}

func decideWords(kind string) string {
	if kind == "exec" {
		return "be asked before every program start, which waits for its answer"
	}
	return "be asked before every file open in its scope, which waits for its answer"
}

func ruleWords(action string) string {
	what := map[string]string{
		"exec": "the start of programs that it names", "open_write": "writing files that it names", "unlink_rename": "removing and renaming files that it names",
		"connect": "connections to addresses that it names", "module_load": "loading kernel modules", "ptrace": "the tracing of processes",
		"memfd_exec": "the start of programs that are in no file", "mprotect_exec": "mapping files that it names for execution",
	}[action]
	return "have the kernel refuse " + what + " by rules (" + action + "), for the time of a lease also when it does not run"
}

func consumeWords(word, value string) string {
	switch word {
	case "memory":
		return value + " of memory"
	case "pids":
		return value + " processes and threads"
	case "cpu":
		return value + " processor cores"
	case "files":
		return value + " open files"
	case "state":
		return value + " of disk for its state"
	case "log":
		return value + " of disk for its log"
	}
	return word + " " + value
}
