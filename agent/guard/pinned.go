package guard

// ProtectPinned protects a directory of pins that was made since Start, and the maps that are pinned there, whoever asks for them how.
func (g *Guard) ProtectPinned(dir string) error { return g.protectPinned([]string{dir}) }
