"""What every test wants: one thread, for speed (tests run side by side) and for equal bits."""

import torch

torch.set_num_threads(1)
