# SPDX-License-Identifier: GPL-3.0-or-later
"""Offline stand-in for the get-pip script that ansible-test downloads.

Installs pip from the wheel that lies beside this file (or from the configured index), as get-pip.py would.
"""

import glob
import os
import runpy
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
wheels = sorted(glob.glob(os.path.join(HERE, "pip-*.whl")))
if not wheels:
    sys.exit(f"no pip wheel in {HERE}: pip download --no-deps pip==24.2 -d {HERE}")
sys.path.insert(0, wheels[-1])
args = [a for a in sys.argv[1:] if a not in ("--no-setuptools", "--no-wheel")]
sys.argv = ["pip", "install", "--upgrade", "--find-links", HERE, *args]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
