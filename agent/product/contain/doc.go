// Package contain starts one product inside its containment and takes it down again: own user, namespaces, root, seccomp
// filter, Landlock domain and resource limits. It does not decide when a product runs, and knows neither grants nor
// protocol.
//
// The agent clones a helper (this same program) into new namespaces. The helper builds the product's root, gives up every
// privilege for good and executes itself once more as the product's pid 1, which starts the product, reaps what it leaves
// and watches a pipe that only the agent holds: when the agent dies, so does everything in the namespace. A product that may
// outlive its agent (Spec.Outlive) hangs on that pipe alone: it lives for as long as somebody holds the pipe, and another agent
// that was given its descriptors (Process.Parts) takes it over with Adopt.
//
// The agent's own work that reads from strangers (product.Servant) is contained in the same way, with the network (Spec.Network).
//
// Invariant: a product's first instruction runs only after every mandatory step succeeded, and pid 1 has no privilege that
// the product does not have.
package contain
