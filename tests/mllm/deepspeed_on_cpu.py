"""`python -m ffaa`, with DeepSpeed's own shared-memory communication off: it would be compiled first."""

import sys

import deepspeed.ops

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

from ffaa.cli.main import main  # noqa: E402

sys.exit(main())
