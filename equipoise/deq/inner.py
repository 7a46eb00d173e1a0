"""Inner products that never mix structures.

A batch holds many independent fixed-point problems. Each has its own residual, its own acceleration coefficients and its own
end; an answer that depended on the batch it was computed in would not be a property of the structure.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Inner:
    """<a, b>_s = Σ a_r · b_r over the rows r that belong to structure s.

    Structures must be independent: where rows of one enter f of another, a structure that converged, and is frozen, goes stale
    while the other still moves, and nothing notices.

    Attributes:
      owner: structure of each row, or None when all rows belong to one structure.
      structures: how many structures there are; by default as many as ``owner`` names.
    """

    owner: Int[Tensor, " rows"] | None = None
    structures: int | None = None

    def __post_init__(self):
        if self.structures is None:
            named = 1 if self.owner is None else int(self.owner.max()) + 1
            object.__setattr__(self, "structures", named)
        if self.structures < 1:
            raise ValueError(f"structures must be >= 1, received {self.structures}")
        if self.owner is None and self.structures != 1:
            raise ValueError(
                f"owner is needed to tell {self.structures} structures apart, received None"
            )

    @property
    def segments(self) -> Tensor | None:
        """``owner`` where it is needed, None for a single structure."""
        return None if self.structures == 1 else self.owner

    def sum(self, rows: Float[Tensor, "rows ..."]) -> Float[Tensor, "structures ..."]:
        """Sum rows of equal owner; in float64, so that tight tolerances can be told apart."""
        rows = rows.double()
        if self.segments is None:
            return rows.sum(0, keepdim=True)
        return rows.new_zeros(self.structures, *rows.shape[1:]).index_add(0, self.segments, rows)

    def norm(self, a: Float[Tensor, "rows ..."]) -> Float[Tensor, " structures"]:
        """√<a, a> of each structure."""
        if self.segments is None:
            return torch.linalg.vector_norm(a).double()[None]
        return self.sum(torch.linalg.vector_norm(_flat(a, 1), dim=1).double().square()).sqrt()

    def squared(self, a: Float[Tensor, "rows ..."]) -> Float[Tensor, " structures"]:
        """<a, a> of each structure, which unlike its root has a derivative at zero."""
        return self.sum(_flat(a.double().square(), 1).sum(1))

    def largest(self, a: Float[Tensor, "rows ..."]) -> Float[Tensor, " structures"]:
        """max over the rows r of each structure of |a_r|, the Euclidean length of a row."""
        sizes = torch.linalg.vector_norm(_flat(a, 1), dim=1).double()
        if self.segments is None:
            return sizes.amax(0, keepdim=True)
        largest = sizes.new_zeros(self.structures)
        return largest.scatter_reduce(0, self.segments, sizes, reduce="amax")

    def rows(self, like: Tensor) -> Float[Tensor, " structures"]:
        """How many rows each structure has."""
        return self.sum(torch.ones(len(like), device=like.device))

    def counts(self, like: Tensor) -> list[int]:
        """The same on the host."""
        return [len(like)] if self.segments is None else self.rows(like).int().tolist()

    def fetch(
        self,
        mapped: Float[Tensor, "rows ..."],
        change: Float[Tensor, "rows ..."],
        extra: Float[Tensor, "k structures"] | None,
    ) -> list:
        """√<mapped, mapped>, max_r |change_r| and ``extra`` on the host, in a single transfer.

        One list of floats for a single structure, of arrays [structures] for several.
        """
        if self.segments is None:
            # Without the conversions of ``norm`` and ``largest``: every small operation counts here.
            norm = torch.linalg.vector_norm(mapped).view(1)
            largest = torch.linalg.vector_norm(_flat(change, 1), dim=1).amax().view(1)
            parts = (norm, largest) if extra is None else (norm, largest, extra.view(-1))
            return torch.cat(parts).tolist()
        parts = [self.norm(mapped), self.largest(change), *([] if extra is None else extra)]
        return list(torch.stack(parts).cpu().numpy())

    def dots(
        self, stack: Float[Tensor, "k rows ..."], a: Float[Tensor, "rows ..."]
    ) -> Float[Tensor, "k structures"]:
        """<stack_i, a> of each structure, in one pass over the stack."""
        if self.segments is None:
            return torch.mv(stack.flatten(1), a.flatten()).unsqueeze(1)
        products = _exact(_flat(stack, 2)).transpose(0, 1) @ _exact(_flat(a, 1)).unsqueeze(2)
        return self.sum(products.squeeze(2)).T

    def overlaps(
        self, one: Float[Tensor, "k rows ..."], other: Float[Tensor, "l rows ..."]
    ) -> Float[Tensor, "k l structures"]:
        """<one_i, other_j> of each structure, as one product of matrices."""
        if self.segments is None:
            return torch.mm(_exact(one.flatten(1)), _exact(other.flatten(1)).T).unsqueeze(2)
        products = _exact(_flat(one, 2)).transpose(0, 1) @ _exact(_flat(other, 2)).permute(1, 2, 0)
        return self.sum(products).permute(1, 2, 0)

    def combine(
        self, coefficients: Float[Tensor, "k structures"], stack: Float[Tensor, "k rows ..."]
    ) -> Float[Tensor, "rows ..."]:
        """Σ_i c_i stack_i, each structure with coefficients of its own."""
        coefficients = coefficients.to(stack.dtype)
        if self.segments is None:
            return torch.mv(stack.flatten(1).T, coefficients.squeeze(1)).view(stack.shape[1:])
        # Not as a product of matrices, which a GPU may be allowed to round to 10 bits (TF32): this is the next state itself.
        weights = coefficients[:, self.segments].view(len(stack), -1, *[1] * (stack.dim() - 2))
        combined = weights[0] * stack[0]
        for weight, each in zip(weights[1:], stack[1:], strict=True):
            combined.addcmul_(weight, each)
        return combined

    def spread(self, values: Shaped[Tensor, "structures ..."]) -> Shaped[Tensor, "_ ..."]:
        """One value per structure → one per row, or a single one that broadcasts."""
        return values if self.segments is None else values[self.segments]


def _exact(a: Tensor) -> Tensor:
    """For inner products on a GPU that is allowed TF32: 10 bits would make nonsense of coefficients solved from them."""
    rounded = a.is_cuda and torch.get_float32_matmul_precision() != "highest"
    return a.double() if rounded else a


def _flat(a: Tensor, dims: int) -> Tensor:
    """All dimensions behind the first ``dims`` as one, also where there is none."""
    return a.flatten(dims) if a.dim() > dims else a.unsqueeze(dims)
