"""The read wing: from stored results to tables, figures and pages."""

import logging

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home that cannot be written is no news to who reads a report
