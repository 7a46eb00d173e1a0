"""Published data sets, one module each, with its units, splits and provenance.

The functions are in `equipoise.data`; here the modules keep their names.
"""
