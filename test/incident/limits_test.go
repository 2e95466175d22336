package incident

import "time"

// What the suite judges by, quoted by every replay. The deadlines are the defaults that an operator starts with.
const (
	execDeadline     = 500 * time.Millisecond // a question about an exec is answered by then, whatever its products do
	openDeadline     = 200 * time.Millisecond
	criticalDeadline = 100 * time.Millisecond // for files of the critical set
	budgetOfHundred  = 80                     // of a deadline, for products

	// A canary's time is fork, exec and wait as well as the question, on a machine that does other things too. What an
	// unwatched canary needs at the same time is added to this, and both slacks grow with the machine's load,
	// up to mostStrain times.
	slack = 300 * time.Millisecond
	// After a fault was dealt with, this many of a hundred canaries take at most twice what they took before. A canary that still
	// waited for the product would take a whole budget; in half a second there are too few for the hundredth to say something.
	normalOfHundred = 90
	normalSlack     = 50 * time.Millisecond
	mostStrain      = 4

	notAnswering = 10 * time.Second // a product that answers nothing is not waited for any more by then
	rollBack     = 30 * time.Second // from a release that cannot run to the one before
	crashLoop    = 5                // ends within a minute after which a product goes back, or is off
	quota        = 1.3              // of the granted processor time, measured over seconds

	brakePackaged = 5                // distinct files of packages that a product may deny in a minute before the brake
	brakeFiles    = 20               // distinct files that a product may deny in all before the brake
	brakeWithin   = 10 * time.Second // and how soon execs are let through again

	keeperAnswers = 100 * time.Millisecond // after the agent's death or stop, a question is answered
	agentBack     = 2 * time.Second        // and the agent serves again
	// The kernel wakes all who wait with each answer: a thousand answers are up to a million looks, which they take from one
	// another, and from whoever answers. Measured on two processors: 0.4 s, and 0.7 s beside other work.
	thousandLooks = 700 * time.Millisecond
)
