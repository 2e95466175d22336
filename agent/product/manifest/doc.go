// Package manifest reads a product's manifest.toml: what the product is, how it runs, and which grants it asks for. It
// grants nothing itself and touches no file but the manifest.
//
// Invariant: a Manifest returned by Parse has passed every check here, so later stages test none of it again; whatever is
// unknown, misspelt or out of range is an error that names line and column.
package manifest
