"""The scenarios: each a module with its KINDS of faults and `run(lab, counts)`, where counts says how many of each."""

from benchmarks.faults.scenarios import inputs, kills, leftovers, nodes, rows, storage

SCENARIOS = (inputs, storage, leftovers, rows, kills, nodes)
