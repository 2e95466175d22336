package file

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// object is a file handle as a record carries it, with the file system it belongs to.
type object struct {
	fsid   unix.Fsid
	handle []byte // a struct file_handle, as open_by_handle_at takes it; a slice of the read buffer
}

// named is a directory and the name of an entry in it.
type named struct {
	dir  object
	name []byte
}

// change is one event of the notify group. Its slices point into the read buffer.
type change struct {
	mask     uint64
	pid      int32
	pidfd    int32 // -1 when there is none: the process ended, or the kernel does not tell
	hasPidfd bool  // the kernel tells
	entry    named // of every event on a named object; for a rename the new name
	old      named // of FAN_RENAME the old name
	object   object
	length   int
}

var errRecord = errors.New("malformed fanotify record")

const (
	infoHeaderSize = 4
	fidHeaderSize  = infoHeaderSize + 8 // type, pad, length; fsid
	handleHeader   = 8                  // handle_bytes, handle_type
	maxHandle      = 128                // MAX_HANDLE_SZ
)

// parseChange reads the event at the start of b. An info record of an unknown type is skipped; one that does not fit is an
// error, for which length is still set when the event's own length can be trusted.
func parseChange(b []byte) (c change, err error) {
	c.pidfd = -1
	if len(b) < metadataSize {
		return c, errRecord
	}
	length := int(binary.NativeEndian.Uint32(b))
	head := int(binary.NativeEndian.Uint16(b[6:]))
	if b[4] != unix.FANOTIFY_METADATA_VERSION || head < metadataSize || length < head || length > len(b) {
		return c, errRecord
	}
	c.length = length
	c.mask = binary.NativeEndian.Uint64(b[8:])
	c.pid = int32(binary.NativeEndian.Uint32(b[20:]))
	for rest := b[head:length]; len(rest) > 0; {
		if len(rest) < infoHeaderSize {
			return c, errRecord
		}
		n := int(binary.NativeEndian.Uint16(rest[2:]))
		if n < infoHeaderSize || n > len(rest) {
			return c, errRecord
		}
		if err := c.info(rest[0], rest[:n]); err != nil {
			return c, err
		}
		rest = rest[n:]
	}
	return c, nil
}

func (c *change) info(kind byte, rec []byte) (err error) {
	switch kind {
	case unix.FAN_EVENT_INFO_TYPE_PIDFD:
		if len(rec) < infoHeaderSize+4 {
			return errRecord
		}
		c.hasPidfd = true
		c.pidfd = int32(binary.NativeEndian.Uint32(rec[infoHeaderSize:]))
	case unix.FAN_EVENT_INFO_TYPE_FID:
		c.object, _, err = parseObject(rec)
	case unix.FAN_EVENT_INFO_TYPE_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
		c.entry, err = parseNamed(rec)
	case unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME:
		c.old, err = parseNamed(rec)
	case unix.FAN_EVENT_INFO_TYPE_DFID:
		c.entry.dir, _, err = parseObject(rec)
	}
	return err
}

func parseObject(rec []byte) (o object, rest []byte, err error) {
	if len(rec) < fidHeaderSize+handleHeader {
		return o, nil, errRecord
	}
	o.fsid.Val[0] = int32(binary.NativeEndian.Uint32(rec[infoHeaderSize:]))
	o.fsid.Val[1] = int32(binary.NativeEndian.Uint32(rec[infoHeaderSize+4:]))
	n := binary.NativeEndian.Uint32(rec[fidHeaderSize:])
	if n > maxHandle || int(n) > len(rec)-fidHeaderSize-handleHeader {
		return o, nil, errRecord
	}
	end := fidHeaderSize + handleHeader + int(n)
	o.handle = rec[fidHeaderSize:end:end]
	return o, rec[end:], nil
}

func parseNamed(rec []byte) (n named, err error) {
	dir, rest, err := parseObject(rec)
	if err != nil {
		return n, err
	}
	i := bytes.IndexByte(rest, 0)
	if i < 0 {
		return n, errRecord
	}
	return named{dir: dir, name: rest[:i:i]}, nil
}
