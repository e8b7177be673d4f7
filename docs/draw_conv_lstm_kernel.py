"""Draws docs/conv_lstm_kernel.png: python docs/draw_conv_lstm_kernel.py"""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INPUT, HIDDEN, GATES, CELL, HALO = "#8ecae6", "#ffb703", "#cdb4db", "#95d5b2", "#e5e5e5"


def box(axes, x, y, width, height, text, colour, size=9):
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0.02", facecolor=colour, edgecolor="#333", linewidth=1
        )
    )
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)


def arrow(axes, start, end, text="", shift=(0, 0), bend=0.0):
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=13, color="#333", connectionstyle=f"arc3,rad={bend}"
        )
    )
    if text:
        x, y = (start[0] + end[0]) / 2 + shift[0], (start[1] + end[1]) / 2 + shift[1]
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color="#333")


def draw_layout(axes):
    """A row of two images, as it lies in HBM and as it lies in VMEM."""
    axes.set_title("One row of the image, packed: a neighbour is a register away", fontsize=11, loc="left")
    names = ("a", "b")
    for image, name in enumerate(names):
        y = 2.2 - image * 0.75
        for column in range(8):
            colour = INPUT if column < 4 else "#cfe8f3"
            axes.add_patch(Rectangle((column * 0.5, y), 0.5, 0.5, facecolor=colour, edgecolor="#333"))
            axes.text(column * 0.5 + 0.25, y + 0.25, f"{name}{column}", ha="center", va="center", fontsize=9)
        axes.text(-0.15, y + 0.25, f"image {name}", ha="right", va="center", fontsize=9)
    axes.text(1, 2.85, "left half", ha="center", fontsize=8)
    axes.text(3, 2.85, "right half", ha="center", fontsize=8)
    axes.text(2, 1.05, "[B, T, H, W, C]: the width lies in the sublanes", ha="center", fontsize=9)
    arrow(axes, (4.25, 2.0), (5.6, 2.0), "strided loads,\n16 bits exchanged", (0, 0.42))
    left = 6.9
    for column in range(-1, 5):
        outside = column in (-1, 4)
        x = left + (column + 1) * 0.85
        for row in range(4):
            image, part = divmod(row, 2)
            source = column + 4 * part
            there = 0 <= source < 8
            colour = HALO if outside else (INPUT if part == 0 else "#cfe8f3")
            y = 2.75 - row * 0.5
            axes.add_patch(Rectangle((x, y), 0.7, 0.5, facecolor=colour, edgecolor="#333"))
            label = f"{names[image]}{source}" if there else "0"
            axes.text(x + 0.35, y + 0.25, label, ha="center", va="center", fontsize=9)
    for row, label in enumerate(("a, left", "a, right", "b, left", "b, right")):
        axes.text(left - 0.1, 3.0 - row * 0.5, label, ha="right", va="center", fontsize=8)
    axes.annotate("", (left + 3.95, 3.45), (left + 1.15, 3.45), arrowprops={"arrowstyle": "<->", "color": "#333"})
    axes.text(left + 2.55, 3.55, "columns of the window: another register each", ha="center", fontsize=8)
    axes.text(
        left + 2.5,
        0.88,
        "[T, H, W/2, B·2, C] in VMEM; grey: where the halves meet, copied once",
        ha="center",
        fontsize=9,
    )
    axes.set(xlim=(-1.2, 12.6), ylim=(0.6, 3.9))
    axes.axis("off")


def draw_flow(axes):
    """What one step of the grid does, and with which blocks of rows."""
    axes.set_title(
        "One step of the grid: three blocks of rows at once, none waiting for another", fontsize=11, loc="left"
    )
    axes.add_patch(Rectangle((2.75, 0.15), 7.25, 4.75, facecolor="#f7f7f7", edgecolor="#999", linestyle="--"))
    axes.text(9.9, 4.7, "VMEM, for all steps of the sequence", ha="right", va="center", fontsize=9, color="#555")
    box(axes, 0.0, 3.2, 1.5, 0.9, "HBM\nx, block n", INPUT)
    for shade, x in (("even frames", 3.1), ("odd frames", 5.0)):
        axes.add_patch(Rectangle((x - 0.08, 2.92), 1.66, 1.46, facecolor=HALO, edgecolor="#333"))
        axes.add_patch(Rectangle((x, 3.0), 0.75, 1.3, facecolor=HIDDEN, edgecolor="#333"))
        axes.add_patch(Rectangle((x + 0.75, 3.0), 0.75, 1.3, facecolor=INPUT, edgecolor="#333"))
        axes.text(x + 0.375, 3.65, "h", ha="center", va="center", fontsize=10)
        axes.text(x + 1.125, 3.65, "x", ha="center", va="center", fontsize=10)
        axes.text(x + 0.75, 4.47, shade, ha="center", va="bottom", fontsize=8)
    axes.text(7.15, 4.0, "lanes: hidden state\nbeside input;\ngrey: border of zeros", fontsize=8, va="center")
    box(axes, 3.1, 1.45, 1.9, 0.75, "products of all taps\n(matrix units), block n-2", GATES)
    box(axes, 5.9, 1.45, 2.0, 0.75, "gates, one tanh for all\n(vector units), block n-3", GATES)
    box(axes, 8.5, 1.45, 1.3, 0.75, "c\nfloat32", CELL)
    box(axes, 3.1, 0.3, 1.9, 0.55, "weights [kh·kw·(F+C), 4F]", "#ffffff", 8)
    box(axes, 10.9, 1.45, 1.6, 0.75, "HBM\nh, block n-3", HIDDEN)
    arrow(axes, (1.55, 3.65), (3.0, 3.65), "1  lay out", (-0.06, 0.17))
    arrow(axes, (3.85, 2.9), (3.85, 2.25), "2  read this frame", (0.68, 0.1))
    arrow(axes, (4.05, 0.87), (4.05, 1.42))
    arrow(axes, (5.05, 1.83), (5.85, 1.83), "products\nof the step\nbefore", (0, 0.42))
    arrow(axes, (7.95, 1.95), (8.45, 1.95))
    arrow(axes, (8.45, 1.65), (7.95, 1.65))
    arrow(axes, (6.9, 2.25), (5.95, 2.9), "3  write the next frame's h", (1.05, 0.0))
    arrow(axes, (6.9, 1.42), (11.7, 1.42), "4  rows written, in the usual layout again", (-0.85, -0.85), bend=0.25)
    axes.set(xlim=(-0.2, 12.7), ylim=(-0.1, 5.0))
    axes.axis("off")


figure, (above, below) = plt.subplots(2, 1, figsize=(11, 8), height_ratios=(3.2, 5))
draw_layout(above)
draw_flow(below)
figure.tight_layout()
figure.savefig(Path(__file__).with_name("conv_lstm_kernel.png"), dpi=110)
