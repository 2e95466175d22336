package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scenery is what a group of attacks needs of a scene beside the usual.
var scenery = map[string][]func(*scene){
	"scsi":   {func(s *scene) { s.SCSI = true }},
	"mapper": {func(s *scene) { s.Mapper = true }},
}

// needsModules loads the modules that the machine has for tests: storage of other kinds.
func needsModules(t *testing.T) {
	t.Helper()
	order, err := os.ReadFile("/lib/modules/order")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(order)) {
		if name == unsignedModule {
			continue
		}
		f, err := os.Open("/lib/modules/" + name)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatalf("load %s: %v", name, err)
		}
	}
}

// scsiAttacks are aimed at a disk that takes commands past the filesystem.
func scsiAttacks() []attack {
	const ioctl, open = "file_ioctl", "disk_write"
	return []attack{
		{name: "sg_io_on_the_disk", hook: ioctl, do: func(s *scene) error { return s.writeByCommand(s.Disk, os.O_RDONLY) }},
		{name: "sg_io_on_the_generic_device", hook: ioctl, do: func(s *scene) error {
			return s.writeByCommand("/dev/"+s.child("scsi_generic"), os.O_RDONLY)
		}},
		{name: "sg_io_on_the_generic_device_for_writing", hook: open, do: func(s *scene) error {
			return s.writeByCommand("/dev/"+s.child("scsi_generic"), os.O_RDWR)
		}},
		{name: "sg_io_on_the_bsg_device", hook: ioctl, do: func(s *scene) error { return s.writeByBSG("/dev/bsg/" + s.child("bsg")) }},
		{name: "sg_io_on_own_node", hook: ioctl, do: func(s *scene) error {
			var st unix.Stat_t
			if err := unix.Stat("/dev/"+s.child("scsi_generic"), &st); err != nil {
				return err
			}
			if err := unix.Mknod("/dev/own", unix.S_IFCHR|0o600, int(st.Rdev)); err != nil {
				return err
			}
			defer os.Remove("/dev/own") //nolint:errcheck // of the attacker
			return s.writeByCommand("/dev/own", os.O_RDONLY)
		}},
		{name: "dm_on_the_disk", control: exclusive, do: func(s *scene) error {
			if err := makeMapper("second", s.Disk); err != nil {
				return err
			}
			return errors.Join(errEffect, mapper(dmRemove, "second", ""))
		}},
		{name: "md_on_the_disk", control: exclusive, do: mdOnTheDisk},
		{name: "scsi_stop_unit", hook: ioctl, do: func(s *scene) error {
			fd, err := unix.Open(s.Disk, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			if err := call(unix.SYS_IOCTL, uintptr(fd), 6 /* SCSI_IOCTL_STOP_UNIT */, 0); err != nil {
				return err
			}
			return effectUnless(call(unix.SYS_IOCTL, uintptr(fd), 5 /* SCSI_IOCTL_START_UNIT */, 0))
		}},
		{name: "scsi_offline", hook: "file_open", do: func(s *scene) error {
			file := s.sys() + "/device/state"
			if err := put(file, "offline\n"); err != nil {
				return err
			}
			return effectUnless(put(file, "running\n"))
		}},
		{name: "scsi_delete", hook: "file_open", do: func(s *scene) error { return effectUnless(put(s.sys()+"/device/delete", "1")) }},
	}
}

const exclusive = "the kernel refuses: the mounted filesystem has the disk for itself"

const storageTools = "volume managers make the same calls, and which device they are for is said in the caller's memory, where no LSM hook can look for certain"

// mapperAttacks are aimed at a disk that is made of another.
func mapperAttacks() []attack {
	return []attack{
		{name: "dm_lower_disk_write", hook: "disk_write", do: func(s *scene) error { return writeAt(s.Lower, diskSpot, "x") }},
		{name: "dm_remove", control: "the device is in use: the kernel refuses", do: func(*scene) error { return mapper(dmRemove, mapperName, "") }},
		{name: "dm_second_table_on_the_lower_disk", possible: storageTools, do: func(s *scene) error {
			if err := makeMapper("second", s.Lower); err != nil {
				return err
			}
			defer mapper(dmRemove, "second", "") //nolint:errcheck // of the attacker
			defer unix.Sync()                    // the disk is looked at, not what is kept of it in memory
			return writeAt(mapped(s.Lower, s.Disk), diskSpot, "x")
		}},
		{name: "dm_load_error_table", possible: storageTools, do: func(s *scene) error {
			err := errors.Join(mapperTable(mapperName, "error", ""), mapper(dmSuspend, mapperName, ""))
			if errors.Is(s.seeMark(), unix.EIO) {
				err = errEffect
			}
			return errors.Join(err, mapperTable(mapperName, "linear", s.Lower+" 0"), mapper(dmSuspend, mapperName, ""))
		}},
		{name: "dm_suspend", possible: storageTools, do: func(*scene) error {
			if err := mapper(dmSuspend, mapperName, "suspend"); err != nil {
				return err
			}
			return effectUnless(mapper(dmSuspend, mapperName, ""))
		}},
	}
}

// sys returns the disk's directory in sysfs, child what is there in a directory of its device.
func (s *scene) sys() string { return "/sys/block/" + filepath.Base(s.Disk) }

func (s *scene) child(kind string) string {
	found, _ := filepath.Glob(s.sys() + "/device/" + kind + "/*") // the pattern is right
	if len(found) != 1 {
		return "missing-" + kind
	}
	return filepath.Base(found[0])
}

// mark is what attackers write to the disk by commands.
var mark = bytes.Repeat([]byte("written by a command "), 512/21+1)[:512]

// write10 is the SCSI command for one sector at diskSpot.
func write10() []byte {
	command := []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	binary.BigEndian.PutUint32(command[2:], diskSpot/512)
	return command
}

// seeMark says whether a command has reached the disk: the disk's own word, past the kernel's memory of it.
func (s *scene) seeMark() error {
	sector, err := readDisk(s.Disk)
	if err != nil {
		return err
	}
	if !bytes.Equal(sector, mark) {
		return errors.New("the disk does not have it")
	}
	return errEffect
}

// writeByCommand writes to the disk with SG_IO, version 3.
func (s *scene) writeByCommand(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	type sgIOHdr struct { // include/scsi/sg.h
		interfaceID, direction      int32
		commandLen, senseLen        uint8
		iovecs                      uint16
		length                      uint32
		data, command, sense        uintptr
		timeout, flags              uint32
		packID                      int32
		_                           int32
		user                        uintptr
		status, masked, msg, senseN uint8
		hostStatus, driverStatus    uint16
		resid                       int32
		duration, info              uint32
	}
	command, sense, data := write10(), make([]byte, 64), bytes.Clone(mark)
	h := sgIOHdr{interfaceID: 'S', direction: -2 /* to the device */, commandLen: uint8(len(command)), senseLen: uint8(len(sense)), length: uint32(len(data)),
		data: uintptr(unsafe.Pointer(&data[0])), command: uintptr(unsafe.Pointer(&command[0])), sense: uintptr(unsafe.Pointer(&sense[0])), timeout: 5000}
	if err := call(unix.SYS_IOCTL, uintptr(fd), 0x2285 /* SG_IO */, uintptr(unsafe.Pointer(&h))); err != nil {
		return err
	}
	if h.status != 0 || h.hostStatus != 0 {
		return fmt.Errorf("the disk answers %d, %d, %x", h.status, h.hostStatus, sense)
	}
	return s.seeMark()
}

// writeByBSG writes to the disk with SG_IO, version 4.
func (s *scene) writeByBSG(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	command, sense, data := write10(), make([]byte, 64), bytes.Clone(mark)
	var h [160]byte // struct sg_io_v4 of include/uapi/linux/bsg.h
	u32 := func(at int, v uint32) { binary.NativeEndian.PutUint32(h[at:], v) }
	pointer := func(at int, b []byte) { binary.NativeEndian.PutUint64(h[at:], uint64(uintptr(unsafe.Pointer(&b[0])))) }
	u32(0, 'Q')
	u32(12, uint32(len(command)))
	pointer(16, command)
	u32(44, uint32(len(sense)))
	pointer(48, sense)
	u32(60, uint32(len(data)))
	pointer(72, data)
	u32(88, 5000) // timeout
	if err := call(unix.SYS_IOCTL, uintptr(fd), 0x2285 /* SG_IO */, uintptr(unsafe.Pointer(&h[0]))); err != nil {
		return err
	}
	return s.seeMark()
}

// scsiDisk returns the disk that the kernel keeps in memory for tests, a new one if the last was taken away.
func scsiDisk() (string, error) {
	const adapters = "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*"
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // the kernel looks for disks meanwhile
		if found, _ := filepath.Glob(adapters + "/target*/*/block/*"); len(found) > 0 {
			dev := "/dev/" + filepath.Base(found[0])
			if unix.Access(dev, unix.F_OK) == nil {
				return dev, nil
			}
			continue
		}
		scans, _ := filepath.Glob(adapters + "/scsi_host/*/scan")
		if len(scans) == 0 {
			continue
		}
		if err := put(scans[0], "- - -"); err != nil {
			return "", err
		}
	}
	return "", errors.New("the kernel has no disk of scsi_debug")
}

// onSCSI copies an image to such a disk.
func onSCSI(image *os.File) (*os.File, error) {
	path, err := scsiDisk()
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(image.Name())
	if err != nil {
		return nil, err
	}
	dev, err := os.OpenFile(path, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dev.Write(content); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

// Commands of the device mapper (include/uapi/linux/dm-ioctl.h).
const (
	dmCreate  = 3
	dmRemove  = 4
	dmSuspend = 6
	dmLoad    = 9

	dmHead     = 312
	mapperName = "scene"
)

// mapper sends the device mapper a command about a device. With flag "suspend" it suspends, without it resumes.
func mapper(command uintptr, name, flag string) error {
	return mapperCall(command, name, flag, nil)
}

func mapperCall(command uintptr, name, flag string, body []byte) error {
	ctl, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer ctl.Close()
	b := make([]byte, 4096)
	binary.NativeEndian.PutUint32(b, 4) // version 4.0.0
	binary.NativeEndian.PutUint32(b[12:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[16:], dmHead)
	if len(body) > 0 {
		binary.NativeEndian.PutUint32(b[20:], 1) // one target
		copy(b[dmHead:], body)
	}
	if flag == "suspend" {
		binary.NativeEndian.PutUint32(b[28:], 1<<1|1<<10) // DM_SUSPEND_FLAG, DM_SKIP_LOCKFS_FLAG
	}
	copy(b[48:], name)
	return call(unix.SYS_IOCTL, ctl.Fd(), 0xc138fd00|command, uintptr(unsafe.Pointer(&b[0])))
}

// mapperTable loads a table of one target over the whole of the scene's disk. It counts with the next resume.
func mapperTable(name, target, args string) error {
	spec := make([]byte, 40) // struct dm_target_spec
	binary.NativeEndian.PutUint64(spec[8:], 2048*1024/512)
	copy(spec[24:], target)
	return mapperCall(dmLoad, name, "", append(append(spec, args...), 0))
}

// makeMapper makes a device that is another, whole.
func makeMapper(name, disk string) error {
	if err := mapper(dmCreate, name, ""); err != nil {
		return fmt.Errorf("create a mapped device: %w", err)
	}
	if err := mapperTable(name, "linear", disk+" 0"); err != nil {
		return errors.Join(fmt.Errorf("load its table: %w", err), mapper(dmRemove, name, ""))
	}
	return mapper(dmSuspend, name, "")
}

// mapped returns the mapped device on a disk that is not another.
func mapped(disk, not string) string {
	found, _ := filepath.Glob(fmt.Sprintf("/sys/block/%s/holders/dm-*", filepath.Base(disk))) // the pattern is right
	for _, f := range found {
		if dev := "/dev/" + filepath.Base(f); dev != not {
			return dev
		}
	}
	return "/dev/no-mapped-device"
}

// mdOnTheDisk makes the disk a part of an array (include/uapi/linux/raid/md_u.h).
func mdOnTheDisk(s *scene) error {
	const node, major, setArrayInfo, addNewDisk, stopArray = "/dev/md-attack", 9, 0x40480923, 0x40140921, 0x932
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(major, 0))); err != nil {
		return err
	}
	defer os.Remove(node) //nolint:errcheck // of the attacker
	md, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer md.Close()
	var st unix.Stat_t
	if err := unix.Stat(s.Disk, &st); err != nil {
		return err
	}
	array := [18]int32{1: 90, 4: 1 /* RAID 1 */, 5: 2048, 6: 1, 7: 1, 9: 1 /* not persistent */}
	if err := call(unix.SYS_IOCTL, md.Fd(), setArrayInfo, uintptr(unsafe.Pointer(&array[0]))); err != nil {
		return fmt.Errorf("set an array up: %w", err)
	}
	disk := [5]int32{1: int32(unix.Major(st.Rdev)), 2: int32(unix.Minor(st.Rdev)), 4: 6 /* active, in sync */}
	err = effectUnless(call(unix.SYS_IOCTL, md.Fd(), addNewDisk, uintptr(unsafe.Pointer(&disk[0]))))
	return errors.Join(err, call(unix.SYS_IOCTL, md.Fd(), stopArray, 0))
}

// onMapper makes the scene's disk one that is made of another.
func (s *scene) onMapper(lower *os.File) (*os.File, error) {
	s.Lower = lower.Name()
	if err := makeMapper(mapperName, s.Lower); err != nil {
		return nil, err
	}
	return os.OpenFile(mapped(s.Lower, ""), os.O_RDWR, 0)
}
