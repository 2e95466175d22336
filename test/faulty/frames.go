package main

import (
	"encoding/binary"
	"os"

	"bailey/sdk"

	"golang.org/x/sys/unix"
)

// The numbers of docs/protocol.md, written by hand: this is the product that was not written with the sdk.
const (
	headerSize   = 32
	frameEvent   = 4
	frameAnswer  = 65
	frameFinding = 67
	frameAck     = 68
)

// frame is a header with these fields and whatever length it claims.
func frame(length uint32, kind uint16, id, seq uint64) []byte {
	b := make([]byte, headerSize)
	binary.LittleEndian.PutUint32(b, length)
	binary.LittleEndian.PutUint16(b[4:], kind)
	binary.LittleEndian.PutUint64(b[8:], id)
	binary.LittleEndian.PutUint64(b[16:], seq)
	return b
}

// raw writes to the agent past the sdk. A datagram is one frame, so that both can write.
func raw(b []byte, fds ...int) {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_ = unix.Sendmsg(sdk.SocketFD, b, rights, nil, 0) // the agent may have closed it
}

// faultLimit is more than the faults after which the agent ends a conversation.
const faultLimit = 5

func malformed() {
	for range faultLimit {
		raw(frame(31, frameAnswer, 1, 1))                                         // shorter than a header
		raw(frame(1<<31, frameAnswer, 1, 1))                                      // longer than the datagram
		raw(append(frame(headerSize+4, frameFinding, 0, 0), 0xff, 0xff, 0xff, 0)) // no message
		raw([]byte{1, 2, 3})
	}
}

func oversized() {
	for range faultLimit {
		b := make([]byte, 128<<10)
		copy(b, frame(128<<10, frameFinding, 0, 0))
		raw(b)
	}
}

func agentsKind() {
	for range faultLimit {
		raw(frame(headerSize, frameEvent, 0, 1))
	}
}

func unasked() {
	for i := range uint64(faultLimit) {
		raw(frame(headerSize, frameAnswer, 1<<40+i, 1<<40+i))
	}
}

// twice answers a question that will be answered again.
func twice(q *sdk.Question) {
	if q != nil {
		raw(frame(headerSize, frameAnswer, q.ID, q.Seq))
	}
}

// sendDescriptor sends what the agent must not install.
func sendDescriptor() {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return
	}
	defer f.Close()
	for range faultLimit {
		raw(frame(headerSize, frameAck, 0, 0), int(f.Fd()))
	}
}

// overAck acknowledges what was never sent.
func overAck() {
	for i := range uint64(1000) {
		raw(frame(headerSize, frameAck, 0, 1<<50+i))
	}
}
