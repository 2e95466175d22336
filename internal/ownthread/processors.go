package ownthread

import (
	"runtime"
	"sync"
)

// changing keeps two changes of GOMAXPROCS, which is read and then set, from losing one. The state itself is the runtime's.
var changing sync.Mutex

func add(n int) {
	changing.Lock()
	defer changing.Unlock()
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0)+n, 1))
}
