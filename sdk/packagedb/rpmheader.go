package packagedb

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Tags of a package header, from rpm's rpmtag.h.
const (
	tagName           = 1000
	tagVersion        = 1001
	tagRelease        = 1002
	tagEpoch          = 1003
	tagArch           = 1022
	tagFileStates     = 1029
	tagFileModes      = 1030
	tagFileDigests    = 1035
	tagFileFlags      = 1037
	tagDirIndexes     = 1116
	tagBaseNames      = 1117
	tagDirNames       = 1118
	tagFileDigestAlgo = 5011
)

// Types of a tag's value.
const (
	typeChar        = 1
	typeInt16       = 3
	typeInt32       = 4
	typeString      = 6
	typeStringArray = 8
)

// tagValue is where one tag's value lies: count items of a type, somewhere before the end of data.
type tagValue struct {
	kind, count uint32
	data        []byte
}

// rpmHeader is a package header: an index of 16-byte entries (tag, type, offset, count; big-endian) and the values.
type rpmHeader map[uint32]tagValue

// parseHeader reads the index of a header as the database stores it, without the magic number of package files.
func parseHeader(blob []byte) (rpmHeader, error) {
	if len(blob) < 8 {
		return nil, fmt.Errorf("%w: header of %d bytes", errDamaged, len(blob))
	}
	entries, size := uint64(binary.BigEndian.Uint32(blob)), uint64(binary.BigEndian.Uint32(blob[4:]))
	if 8+16*entries+size != uint64(len(blob)) {
		return nil, fmt.Errorf("%w: header of %d bytes says it has %d entries and %d bytes", errDamaged, len(blob), entries, size)
	}
	index, data := blob[8:8+16*entries], blob[8+16*entries:]
	h := make(rpmHeader, entries)
	for ; len(index) > 0; index = index[16:] {
		tag, offset := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[8:])
		if uint64(offset) > size {
			return nil, fmt.Errorf("%w: tag %d lies at %d of %d", errDamaged, tag, offset, size)
		}
		h[tag] = tagValue{kind: binary.BigEndian.Uint32(index[4:]), count: binary.BigEndian.Uint32(index[12:]), data: data[offset:]}
	}
	return h, nil
}

// text returns a string tag, empty where it is missing or not a string.
func (h rpmHeader) text(tag uint32) string {
	v := h[tag]
	if v.kind != typeString {
		return ""
	}
	s, _, _ := bytes.Cut(v.data, []byte{0})
	return string(s)
}

// texts returns a tag of strings; a list that is cut short ends where the data ends.
func (h rpmHeader) texts(tag uint32) []string {
	v := h[tag]
	if v.kind != typeStringArray || uint64(v.count) > uint64(len(v.data)) {
		return nil
	}
	out := make([]string, 0, v.count)
	for rest := v.data; uint32(len(out)) < v.count; {
		end := bytes.IndexByte(rest, 0)
		if end < 0 {
			break
		}
		out = append(out, string(rest[:end]))
		rest = rest[end+1:]
	}
	return out
}

func (h rpmHeader) int32s(tag uint32) []uint32 {
	v := h[tag]
	if v.kind != typeInt32 || uint64(v.count)*4 > uint64(len(v.data)) {
		return nil
	}
	out := make([]uint32, v.count)
	for i := range out {
		out[i] = binary.BigEndian.Uint32(v.data[4*i:])
	}
	return out
}

func (h rpmHeader) int16s(tag uint32) []uint16 {
	v := h[tag]
	if v.kind != typeInt16 || uint64(v.count)*2 > uint64(len(v.data)) {
		return nil
	}
	out := make([]uint16, v.count)
	for i := range out {
		out[i] = binary.BigEndian.Uint16(v.data[2*i:])
	}
	return out
}

func (h rpmHeader) bytes(tag uint32) []byte {
	v := h[tag]
	if v.kind != typeChar || uint64(v.count) > uint64(len(v.data)) {
		return nil
	}
	return v.data[:v.count]
}
