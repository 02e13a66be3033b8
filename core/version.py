"""The project's version: what `--version` prints, and what checkpoints and records carry."""

VERSION = "0.1.0"
