# SPDX-License-Identifier: GPL-2.0-only
export NO_COLOR=1 PYTHON_COLORS=0
exec python3 /selftest/soak.py $(cat /selftest/wanted)
