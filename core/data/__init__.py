"""Data sets: read, fetch, unpack, pack, split, describe, amplify, degrade, render."""
