package event

// Fate says what became of a live product's deny.
type Fate uint8

// The fates.
const (
	DenyStood    Fate = iota + 1 // it decided the question
	DenyCritical                 // overridden: the file is in the critical set
	DenyBraked                   // overridden: the product is braked, or would be by this deny
)

// Denial is a deny of a live product that holds the deny grant. Immutable.
type Denial struct {
	Product    string
	Fate       Fate
	QuestionID uint64
	Asked      Kind // Exec or Open
	Time       uint64
	File       File
	Process    *Process
}
