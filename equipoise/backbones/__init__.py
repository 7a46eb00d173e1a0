"""Equivariant maps z → z, each with its way in and out."""

from equipoise.backbones.backbone import Backbone as Backbone
from equipoise.backbones.equiformer_v2 import EquiformerV2 as EquiformerV2
from equipoise.backbones.equiformer_v2 import EquiformerV2Config as EquiformerV2Config
from equipoise.backbones.equiformer_v2_original import EquiformerV2Original as EquiformerV2Original
