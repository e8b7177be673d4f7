"""What a slice of a TPU pod does with a training step: compiled for it without one, or timed on it."""
