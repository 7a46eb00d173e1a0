"""The original EquiformerV2, exactly: for published weights and fair comparison."""

from equipoise.backbones.equiformer_v2_original.config import (
    EquiformerV2OriginalConfig as EquiformerV2OriginalConfig,
)
from equipoise.backbones.equiformer_v2_original.convert import ConversionReport as ConversionReport
from equipoise.backbones.equiformer_v2_original.convert import load_original as load_original
from equipoise.backbones.equiformer_v2_original.convert import read_state as read_state
from equipoise.backbones.equiformer_v2_original.convert import to_original as to_original
from equipoise.backbones.equiformer_v2_original.injection import (
    OriginalInjection as OriginalInjection,
)
from equipoise.backbones.equiformer_v2_original.network import (
    EquiformerV2Original as EquiformerV2Original,
)
from equipoise.backbones.equiformer_v2_original.network import (
    OriginalPrediction as OriginalPrediction,
)
from equipoise.backbones.equiformer_v2_original.presets import presets as presets
from equipoise.backbones.equiformer_v2_original.settings import (
    config_from_original as config_from_original,
)
from equipoise.backbones.equiformer_v2_original.symmetry import Violations as Violations
from equipoise.backbones.equiformer_v2_original.symmetry import violations as violations
