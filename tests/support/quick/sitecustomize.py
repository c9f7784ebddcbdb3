"""Python imports this at its start if this folder is on PYTHONPATH: configs are not formatted."""

from yapf.yapflib import yapf_api

yapf_api.FormatCode = lambda text, **_: (text, True)
