"""LSTM(64) that reads handwritten digits row by row.

python -m zoo.train --model lstm

Half a minute on two CPU cores, most of it start-up; 98.6% of 360 held-out digits. Guessing gives 10%.
"""

from zoo.configs import TrainConfig

PRESETS = {
    "default": TrainConfig(
        model="lstm",
        options={"in_features": 28},
        task="classification",
        dataset="digits",
        dataset_options={"size": 28, "channels": 1},
        steps=1000,
        batch_size=64,
        learning_rate=3e-3,
        weight_decay=1e-2,
        evaluation_items=360,
        evaluate_every=250,
        checkpoint_every=250,
    )
}
