"""Measurement: timing, machine, records, profiles, experiments and reports."""
