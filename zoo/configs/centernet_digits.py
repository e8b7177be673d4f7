"""CenterNet-MobileNetV3 learns boxes around moving handwritten digits.

python -m zoo.train --model centernet_digits
python -m benchmarks.digit_boxes --run runs/FOLDER

Average precision on held-out digits by COCO's protocol is told at every evaluation, of the frames of 64 clips; by the
second command of 512 clips, a frame each. 10 min 40 s on two cores of an Intel Xeon: 0.748, and 0.977 at an overlap of
0.5, which was above 0.9 after 500 steps; of the 512 clips 0.725 and 0.968.
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

CARDS = {
    "centernet_digits": {
        "task": "detection",
        "description": "Boxes around handwritten digits, bright on dark: CenterNet-MobileNetV3, trained here.",
        "labels": tuple("0123456789"),
        "preprocessing": {"size": 64, "tiles": 1, "threshold": 0.4, "most_overlap": 0.5},
        "licence": "Code and weights Apache-2.0 (this project). Digits: UCI Optical Recognition, CC BY 4.0.",
        "attribution": "Trained here by `zoo train --model centernet_digits`, on the digits that scikit-learn ships.",
        "protocol": "Average precision by COCO's protocol, as pycocotools counts it, on 512 generated frames of 64x64 "
        "(64 clips of 8 frames, seed 0) of one to three digits that training never saw.",
    }
}
