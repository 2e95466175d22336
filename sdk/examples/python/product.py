#!/usr/bin/python3
"""A complete Bailey product without the Go SDK: it refuses to run a file that contains a forbidden string.

It uses docs/protocol.md, the standard library, and python3-protobuf for product_pb2.py, which protoc made from
api/product/v1/product.proto. One thread; it works on both transports.
"""
import collections
import os
import socket
import struct
import sys
import time

import product_pb2 as pb

HEADER = struct.Struct("<IHHQQQ")  # length, kind, flags, id, seq, deadline
MAX_FRAME = 64 << 10

WELCOME, SUBSCRIBED, QUESTION, EVENT, LOST, STATE, STOP, WITHDRAWN, RESUME = range(1, 10)
SUBSCRIBE, ANSWER, EXTEND, FINDING, ACK = range(64, 69)
UNSUPPORTED = 127

DENY, CACHE_FILE = 1, 2  # flags of an Answer
SHADOW = 4  # flag of a Question

Frame = collections.namedtuple("Frame", "kind flags id seq deadline payload fd")


class Wire:
    """Frames over the socket that the agent gave us."""

    def __init__(self, sock):
        self.sock = sock
        self.stream = sock.type == socket.SOCK_STREAM
        self.cut = collections.deque()  # frames of a datagram that were not returned yet

    def send(self, kind, payload=b"", *, flags=0, id=0, seq=0, deadline=0):
        self.sock.sendall(HEADER.pack(HEADER.size + len(payload), kind, flags, id, seq, deadline) + payload)

    def _recv(self, n, flags):
        data, ancillary, msg_flags, _ = self.sock.recvmsg(n, socket.CMSG_SPACE(4), flags | socket.MSG_CMSG_CLOEXEC)
        fds = []
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds += struct.unpack("%di" % (len(value) // 4), value[: len(value) // 4 * 4])
        return data, fds, msg_flags

    def receive(self, wait=True):
        """The next frame; None at the end of the conversation, or, without wait, when there is none yet."""
        if self.cut:
            return self.cut.popleft()
        flags = 0 if wait else socket.MSG_DONTWAIT
        try:
            frames = self._receive_stream(flags) if self.stream else self._receive_datagram(flags)
        except BlockingIOError:
            return None
        self.cut.extend(frames)
        return self.cut.popleft() if self.cut else None

    def _receive_datagram(self, flags):
        data, fds, msg_flags = self._recv(MAX_FRAME, flags)
        if msg_flags & socket.MSG_TRUNC:
            raise ValueError("datagram larger than 64 KiB")
        frames, at = [], 0
        while at < len(data):
            length, *head = HEADER.unpack_from(data, at)
            fd = fds.pop(0) if fds else -1  # the descriptor belongs to the datagram's first frame
            frames.append(Frame(*head, data[at + HEADER.size : at + length], fd))
            at += length
        return frames

    def _receive_stream(self, flags):
        # The descriptor comes with the first byte of its frame, and a read never goes beyond the bytes that a descriptor
        # was sent with: reading the header alone attributes it without doubt.
        data, fds, _ = self._recv(HEADER.size, flags)
        if not data:
            return []
        while len(data) < HEADER.size:
            data += self._more(HEADER.size - len(data))
        length, *head = HEADER.unpack(data)
        payload = b""
        while len(payload) < length - HEADER.size:
            payload += self._more(length - HEADER.size - len(payload))
        return [Frame(*head, payload, fds[0] if fds else -1)]

    def _more(self, n):
        data, _, _ = self._recv(n, 0)
        if not data:
            raise EOFError("the agent went away within a frame")
        return data


class Product:
    def __init__(self, wire):
        self.wire = wire
        self.waiting = collections.OrderedDict()  # questions not yet answered, by id
        self.forbidden = b""
        self.authority = ""
        self.events = 0
        self.last_event = self.last_question = 0  # numbers received, for an agent that takes over

    def run(self):
        frame = self.wire.receive()
        if frame is None or frame.kind != WELCOME:
            raise ValueError("the first frame is not a Welcome")
        welcome = pb.Welcome.FromString(frame.payload)
        if welcome.protocol != 1:
            raise ValueError("protocol %d" % welcome.protocol)
        self.authority = welcome.authority
        self.forbidden = welcome.settings["forbidden"].encode()
        if not self.forbidden:
            raise ValueError("the setting 'forbidden' is empty")
        self.subscribe()
        while True:
            # Take all that is there before answering, so that a question that was withdrawn meanwhile is not scanned.
            acked, frame = 0, self.wire.receive(wait=not self.waiting)
            if frame is None and not self.waiting:
                raise EOFError("the agent closed the socket")
            while frame is not None:
                if frame.kind == STOP:
                    return  # what waits is counted by the operator's on_miss
                acked = self.handle(frame) or acked
                frame = self.wire.receive(wait=False)
            if acked:
                self.wire.send(ACK, seq=acked)
            if self.waiting:
                self.answer(self.waiting.popitem(last=False)[1])

    def subscribe(self, **more):
        kinds = [pb.Kind.Value("exec")]
        subscribe = pb.Subscribe(events=kinds, questions=kinds, sdk="python-example/1", resume=True, **more)
        self.wire.send(SUBSCRIBE, subscribe.SerializeToString())

    def resume(self, frame):
        """Goes on with another agent: nobody waits for the answers to what the old one asked."""
        welcome = pb.Welcome.FromString(frame.payload)
        self.authority = welcome.authority
        while self.waiting:
            question = self.waiting.popitem()[1]
            if question.fd >= 0:
                os.close(question.fd)
        self.subscribe(resumed=frame.id, last_seq=self.last_event, last_question_seq=self.last_question)
        log("resumed by agent " + welcome.agent_version)

    def handle(self, frame):
        """Handles one frame; returns the number of an event that is now dealt with."""
        if frame.fd >= 0 and frame.kind != QUESTION:
            os.close(frame.fd)
        if frame.kind == QUESTION:
            self.last_question = frame.seq
            self.waiting[frame.id] = frame
        elif frame.kind == WITHDRAWN:
            withdrawn = self.waiting.pop(frame.id, None)
            if withdrawn and withdrawn.fd >= 0:
                os.close(withdrawn.fd)
        elif frame.kind == EVENT:
            self.last_event = frame.seq
            event = pb.Event.FromString(frame.payload)
            self.events += event.kind == pb.Kind.Value("exec")
            return frame.seq
        elif frame.kind == LOST:
            lost = pb.Lost.FromString(frame.payload)
            if lost.stream == pb.Lost.questions:
                self.last_question = lost.to
            else:
                self.last_event = lost.to
            log("lost %s %d to %d: %s" % (pb.Lost.Stream.Name(lost.stream), getattr(lost, "from"), lost.to, lost.cause))
        elif frame.kind == STATE:
            state = pb.State.FromString(frame.payload)
            self.authority = state.authority
            log("authority %s: %s" % (state.authority, state.reason))
        elif frame.kind == SUBSCRIBED:
            for refused in pb.Subscribed.FromString(frame.payload).refused:
                log("refused: " + refused)
        elif frame.kind == RESUME:
            self.resume(frame)
        elif frame.kind != UNSUPPORTED:
            self.wire.send(UNSUPPORTED, pb.Unsupported(frame_kind=frame.kind).SerializeToString())
        return 0

    def answer(self, frame):
        question = pb.Question.FromString(frame.payload)
        try:
            found = frame.fd >= 0 and self.contains(frame)
        finally:
            if frame.fd >= 0:
                os.close(frame.fd)
        if found:
            finding = pb.Finding(
                rule="forbidden-string", title="file contains the forbidden string", severity=pb.Severity.Value("high"),
                question_id=frame.id, action="would_deny" if frame.flags & SHADOW else "denied", file=question.file,
            )
            self.wire.send(FINDING, finding.SerializeToString(), id=frame.id)
        # The answer depends on the file's content alone, so an allow may be cached by the kernel.
        self.wire.send(ANSWER, flags=(DENY if found else 0) | CACHE_FILE, id=frame.id, seq=frame.seq)

    def contains(self, frame):
        """Reads the file through the descriptor, with pread: other products share the offset."""
        size, offset, tail, extended = 256 << 10, 0, b"", False
        while True:
            data = os.pread(frame.fd, size, offset)
            if not data:
                return False
            if self.forbidden in tail + data:
                return True
            offset += len(data)
            tail = data[-len(self.forbidden) + 1 :] if len(self.forbidden) > 1 else b""
            left = frame.deadline - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if frame.deadline and left < 50_000_000 and not extended:
                until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 2_000_000_000
                self.wire.send(EXTEND, id=frame.id, seq=frame.seq, deadline=until)
                extended = True


def log(text):
    print(text, file=sys.stderr, flush=True)


def main():
    try:
        sock = socket.socket(fileno=3)
    except OSError as e:
        sys.exit("descriptor 3 is not a socket (%s): start me through Bailey" % e)
    product = Product(Wire(sock))
    product.run()
    log("stopped after %d exec events" % product.events)


if __name__ == "__main__":
    main()
