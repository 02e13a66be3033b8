"""The commands data, train and evaluate, and the console that all commands share."""
