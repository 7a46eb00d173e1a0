"""The rotation of each edge to the polar axis.

The original measures an edge from its receiver: n = (x_sender - x_receiver) / d, and rotates n to +y. The roll about that axis
is free. The original draws it at random at every call and cuts derivatives off; here it is a deterministic, differentiable
function of n (:func:`equipoise.equivariant.edge_quaternion`). As the sampled activations are not exactly equivariant under a
roll, the choice is visible at the level that :mod:`equipoise.backbones.equiformer_v2_original.symmetry` measures.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def quaternion_of(rotation: Float[Tensor, "edges 3 3"]) -> Float[Tensor, "edges 4"]:
    """Unit quaternions (w, x, y, z) of rotation matrices that act on columns, R v.

    Each component of q times 4 q_k, for that k of the four whose divisor is largest (Shepperd's method): no loss of digits.
    For recorded frames; not meant to be differentiated at half turns.
    """
    trace = rotation.diagonal(dim1=1, dim2=2)
    total = trace.sum(1)
    off, skew = rotation + rotation.mT, rotation.mT - rotation
    a, b, c = skew[:, 1, 2], skew[:, 2, 0], skew[:, 0, 1]
    x, y, z = (1 + 2 * trace - total.unsqueeze(1)).unbind(1)
    xy, xz, yz = off[:, 0, 1], off[:, 0, 2], off[:, 1, 2]
    candidates = torch.stack(
        [
            torch.stack([1 + total, a, b, c], 1),
            torch.stack([a, x, xy, xz], 1),
            torch.stack([b, xy, y, yz], 1),
            torch.stack([c, xz, yz, z], 1),
        ],
        dim=1,
    )
    largest = candidates.diagonal(dim1=1, dim2=2).argmax(1)
    return torch.nn.functional.normalize(
        candidates[torch.arange(len(rotation), device=rotation.device), largest], dim=1
    )


def check_frames(
    frames: Float[Tensor, "edges 3 3"], unit: Float[Tensor, "edges 3"]
) -> Float[Tensor, "edges 3 3"]:
    """Return the frames if each is a rotation that takes its edge direction to +y.

    Raises:
      ValueError: otherwise; typically because edges are measured from the sender.
    """
    with torch.no_grad():
        axis = torch.zeros_like(unit)
        axis[:, 1] = 1
        wrong = ((frames @ unit.unsqueeze(2)).squeeze(2) - axis).abs().amax(1)
        identity = torch.eye(3, dtype=frames.dtype, device=frames.device)
        skewed = (frames @ frames.mT - identity).abs().amax((1, 2))
        worst = float(torch.maximum(wrong, skewed).max()) if len(frames) else 0.0
        mirrored = bool((torch.linalg.det(frames) < 0).any())
    if not worst < 1e-4 or mirrored:
        raise ValueError(
            "frames must be rotations that take each direction from receiver to sender to (0, 1, 0), received some that miss "
            f"by {worst:.1e}{' or mirror' if mirrored else ''}"
        )
    return frames


def rotation_of(quaternion: Float[Tensor, "edges 4"]) -> Float[Tensor, "edges 3 3"]:
    """Rotation matrices of unit quaternions (w, x, y, z); the inverse of :func:`quaternion_of`."""
    w, x, y, z = quaternion.unbind(1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=1).unflatten(1, (3, 3))
