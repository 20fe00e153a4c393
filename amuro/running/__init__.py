"""Running many commands: what a grid means and comes to (grids, needs, costs, plan), who is at a cell and how commands
ended (claims, ledger, status), and a crew of warm workers (runner, cluster, crew, worker, queueing, disk, board)."""
