package sdktest

import (
	"fmt"

	productv1 "bailey/api/product/v1"
)

// Resume does what another agent does that takes the product over after a restart: it forgets what it asked, and returns
// when the product has said that it goes on. The product breaks the protocol if it then claims to have received other
// events and questions than it was sent. Numbers go on; events that the old agent did not get sent are Lose's.
func (a *Agent) Resume() {
	a.t.Helper()
	var id uint64
	a.update(func() {
		a.abandon()
		a.resumes++
		id = a.resumes
		a.earlier = a.nextID
		a.nextID += 1 << 20
	})
	a.send(productv1.Header{Kind: productv1.FrameResume, ID: id}, a.welcomeFor(a.name), -1)
	a.wait("the product's reply to Resume", func() bool { return a.resumed == id })
}

// continued judges a subscription that replies to Resume; called under the lock.
func (a *Agent) continued(m *productv1.Subscribe) error {
	switch {
	case m.GetResumed() == 0:
		return nil
	case m.GetResumed() != a.resumes:
		return fmt.Errorf("reply to Resume %d, which is not the last one, %d", m.GetResumed(), a.resumes)
	}
	a.resumed = m.GetResumed()
	if m.GetLastSeq() != a.eventSeq || m.GetLastQuestionSeq() != a.questionSeq {
		return fmt.Errorf("it received event %d and question %d, the last sent were %d and %d", m.GetLastSeq(), m.GetLastQuestionSeq(), a.eventSeq, a.questionSeq)
	}
	return nil
}
