"""A process that locks a GPU's clock as an agent does: `close`, or `hold` until it is killed."""

import sys
import time

from festina.device.nvidia.device import NvidiaDevice
from festina.device.nvidia.nvml import Nvml
from festina.device.nvidia.watchdog import Watchdog
from festina.types import SmPartition


def main(how: str) -> None:
    with Nvml() as nvml:
        (gpu,) = nvml.gpus()
        guard = Watchdog(gpu.uuid())
        device = NvidiaDevice(gpu, (SmPartition(rung=0, sms=132),), guard, now=0.0)
        device.set_clock_mhz(990)
        device.advance(1.0)
        sys.stdout.write(f"{guard.pid}\n")
        sys.stdout.flush()
        if how == "hold":
            time.sleep(600.0)
        device.close()


if __name__ == "__main__":
    main(sys.argv[1])
