"""Cards and weights, one folder a model. Imported as zoo.checkpoints, so that an installed wheel finds them too."""
