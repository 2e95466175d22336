package agent

import (
	"path/filepath"
	"time"

	"bailey/agent/hub"
	"bailey/agent/recorder"
	"bailey/internal/boottime"
)

// recorderBuffer is how many events the recorder, which takes them every 100 ms, may lag behind.
const recorderBuffer = 16 << 10

var _ recorder.Tap = (*hub.Tap)(nil)

// newRecorder listens from here on, so that the agent's own start is recorded. Its tap is passive: recording makes no sensor
// work that would rest without it.
func (a *Agent) newRecorder() (err error) {
	c := &a.cfg.Recorder
	if !c.Enabled {
		return nil
	}
	a.recorder, err = recorder.New(recorder.Config{
		Dir: filepath.Join(a.cfg.Agent.State, recorder.DirName), Size: int64(c.Size.Size),
		Tap: a.hub.TapPassive(c.KindSet(), recorderBuffer), Encoder: a.codec, Now: boottime.Now, Wall: time.Now,
		Boot: a.bootID, Started: a.started, Version: a.build.Version, Log: a.log, Health: a.health,
	})
	return err
}

// recording is the recorder as a stage: the first, so that it hears what the others say while they end.
func (a *Agent) recording() []stage {
	if a.recorder == nil {
		return nil
	}
	return []stage{{"recorder", a.recorder.Run}}
}

// recorderCounters names the recorder's counts for operators.
func recorderCounters(s recorder.Stats) map[string]uint64 {
	return map[string]uint64{
		"events": s.Events, "lost.slow": s.LostSlow, "lost.disk": s.LostDisk, "lost.oversized": s.LostOversized,
		"blocks": s.Blocks, "bytes_written": s.BytesWritten, "errors": s.Errors, "bytes": s.Bytes, "bound": s.Bound,
		"segments": s.Segments, "damaged": s.Damaged, "torn": s.Torn,
	}
}
