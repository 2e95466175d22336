package process

// WithVariant gives a sensor another schema, as another version of the BPF object would have it.
func WithVariant(cfg Config, variant string) Config {
	cfg.variant = variant
	return cfg
}

// FindBPFFSAt is FindBPFFS on a system whose bpffs would be elsewhere.
func FindBPFFSAt(system, run string) (*BPFFS, error) { return findBPFFS(system, run) }
