"""CenterNet-MobileNetV3 learns boxes around moving handwritten digits.

python -m zoo.train --model centernet_digits
python -m benchmarks.digit_boxes --run runs/FOLDER

The second command tells the average precision on held-out digits by COCO's protocol.
"""

from zoo.configs import TrainConfig

PRESETS = {
    "default": TrainConfig(
        model="centernet",
        options={"batch_norm": True},
        task="detection",
        dataset="boxed_digits",
        steps=2000,
        batch_size=32,
        learning_rate=2e-3,
        weight_decay=1e-4,
        clip_norm=10.0,
        evaluation_items=512,
        evaluate_every=250,
        checkpoint_every=250,
    )
}
