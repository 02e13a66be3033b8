"""What an answer costs on every provider: contestants, their check, and what is timed. See `bench.providers.run`."""
