package ops

import (
	"bytes"
	"sync"
	"time"

	"github.com/layerwright/layerwright/core/internal/progress"
)

// tailSize bounds what is kept of a step's output for its error, in bytes;
// tailLines in lines.
const (
	tailSize  = 16 << 10
	tailLines = 20
)

// stepLog passes a command's output on as events and keeps its end.
type stepLog struct {
	sink progress.Sink
	step progress.Step
	mu   sync.Mutex
	end  []byte
}

func newStepLog(sink progress.Sink, step progress.Step) *stepLog {
	return &stepLog{sink: sink, step: step}
}

func (l *stepLog) stream(n int) *logStream { return &logStream{log: l, n: n} }

// tail is the last lines of both streams.
func (l *stepLog) tail() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := bytes.Split(bytes.TrimRight(l.end, "\n"), []byte("\n"))
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return bytes.Join(lines, []byte("\n"))
}

type logStream struct {
	log *stepLog
	n   int
}

// Write implements io.Writer.
func (s *logStream) Write(p []byte) (int, error) {
	l := s.log
	l.mu.Lock()
	l.end = append(l.end, p...)
	if len(l.end) > 2*tailSize {
		l.end = append([]byte(nil), l.end[len(l.end)-tailSize:]...)
	}
	l.mu.Unlock()
	l.sink.Emit(progress.Log{Step: l.step, Stream: s.n, Data: p, Time: time.Now()})
	return len(p), nil
}
