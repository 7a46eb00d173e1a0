"""EquiformerV2."""

from equipoise.backbones.equiformer_v2.config import EquiformerV2Config as EquiformerV2Config
from equipoise.backbones.equiformer_v2.network import Context as Context
from equipoise.backbones.equiformer_v2.network import EquiformerV2 as EquiformerV2
