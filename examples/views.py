"""What an encoder is shown: one phantom knee and eleven augmented views of it, as a picture.

python examples/views.py views.png
"""

import sys

import numpy as np
import torch
from PIL import Image

from trabecula import Views, view
from trabecula.phantoms.knees import draw_knee
from trabecula.phantoms.patients import Joints
from trabecula.random_numbers import RowRandom

knee = draw_knee(Joints(size=128, seed=3), patient=1, side="L").image  # (S, S) uint8
images = torch.from_numpy(knee).expand(11, 1, -1, -1)  # (B, C, H, W)
random = RowRandom(seed=0, num_rows=11, rows=slice(0, 11), device=torch.device("cpu"))
views = view(images, random, Views(size=128)).images  # (B, C, H, W) float32 in [0, 1]
shown = np.concatenate([knee[None], (views[:, 0] * 255).byte().numpy()])
rows = [np.hstack(list(shown[i : i + 6])) for i in (0, 6)]
Image.fromarray(np.vstack(rows)).save(sys.argv[1])
print(f"wrote {sys.argv[1]}: the image, then 11 views")
