"""Everything that a GPU must show, in one run of minutes: a stage is a module with `run(context) -> summary line`."""
