"""Atoms as tensors: structures, their neighbours, and batches of them."""

from equipoise.graph.batch import batch
from equipoise.graph.graph import Graph
from equipoise.graph.labels import Labels
from equipoise.graph.neighbours import Edges, NeighbourList

__all__ = ["Edges", "Graph", "Labels", "NeighbourList", "batch"]
