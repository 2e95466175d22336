package rig

import (
	"bytes"
	"encoding/binary"
	"runtime"
)

// TinyProgram returns a static ELF executable that calls exit(0), with salt behind it so that every one has another digest.
// It keeps exec tests about exec: no loader, no runtime.
func TinyProgram(salt string) []byte {
	code := []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05} // xor edi,edi; mov eax,60; syscall
	machine := uint16(62)
	if runtime.GOARCH == "arm64" {
		code = []byte{0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4} // mov x0,#0; mov x8,#93; svc #0
		machine = 183
	}
	const base, headers = 0x400000, 64 + 56
	size := uint64(headers + len(code) + len(salt))
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a bytes.Buffer takes everything
	put([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	put([]uint16{2, machine})
	put(uint32(1))
	put([]uint64{base + headers, 64, 0})
	put(uint32(0))
	put([]uint16{64, 56, 1, 0, 0, 0})
	put([]uint32{1, 5}) // PT_LOAD, r-x
	put([]uint64{0, base, base, size, size, 0x1000})
	b.Write(code)
	b.WriteString(salt)
	return b.Bytes()
}
