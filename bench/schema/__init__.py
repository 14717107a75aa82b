"""What a run records: workloads, results files, tasks, the machine."""
