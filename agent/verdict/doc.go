// Package verdict turns the answers of products into one verdict per question. It knows products by number and files by
// identity; it opens nothing, encodes nothing, owns no socket and logs nothing.
//
// Invariant: every question given to Ask is answered exactly once, at the latest when its last product's budget ends, and
// is counted under exactly one reason.
//
// # Who is waited for
//
// A question is asked of every product in its Voters. Live ones are waited for; shadow and degraded ones are asked too,
// and their answers recorded. The first deny by a live product that may deny decides at once; an allow needs every live
// product's word or the end of its budget. The budget is 80 % of the question's deadline: the last fifth is the agent's
// own reserve, so that the verdict is with the kernel before the deadline even on a busy machine.
//
// A degraded product's on_miss does not count either, also not a deny: a product that cannot keep up must not stop the
// machine. A question whose live products are all degraded is allowed at once, by default.
//
// # When an answer is shared
//
// An answer may depend on who asks unless the product says that it does not (cacheFile). So an equal question (same file
// identity, same kind, same live products, no invalidation in between) waits for the one in flight only as long as that
// is likely to help: if the merged verdict turns out to depend on the file alone, all waiting questions get it; if not, or
// after a quarter of their own budget, each is asked on its own. While a live product's latest answers depend on the
// asker, questions do not wait for one another at all.
//
// # What is never cached
//
// Defaults, overridden denies, verdicts of questions asked before an invalidation or during a write to the file, and
// verdicts on files whose ctime is younger than a tick of the kernel's clock could tell from a later write.
package verdict
