"""`python -m ffaa`, with FSDP on processes without a device, where accelerate by itself would choose DDP."""

import sys

from accelerate import state
from accelerate.utils import DistributedType

plain = state.AcceleratorState.__init__


def with_fsdp(self, *args, fsdp_plugin=None, **more):
    plain(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin


state.AcceleratorState.__init__ = with_fsdp

from ffaa.cli.main import main  # noqa: E402

sys.exit(main())
