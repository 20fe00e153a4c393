"""Public pre-training histories: what exists (families, listing), which checkpoints to take (selection), whether they
are what their names say (snapshots, intact, audit, norms, findings, doubts), and getting them (fetching)."""
