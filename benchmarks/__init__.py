"""What is measured, and the tables it was measured into; each module is one command, `python -m benchmarks.X`."""
