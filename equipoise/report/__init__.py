"""Run folders as pictures and one page to pass on."""

from equipoise.report.page import write_report as write_report
from equipoise.report.run_folder import RunFolder as RunFolder
from equipoise.report.run_folder import read_run as read_run
