"""The commands profile, benchmark, experiment, study, evaluate-songs and report."""
