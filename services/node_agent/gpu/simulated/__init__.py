"""Machines with NVIDIA boards that are not there: exact placement rules, seeded, with faults as data.

    machine = simulated_machine("h100-80x2", seed=1, now_s=clock)   # the hardware: lives as long as the test wants
    gpus = SimulatedGpus(machine)                                   # one session of a driver's user: reader and admin
    machine.inject(Fault(FaultKind.IN_USE, verb="destroy_gpu_instance", times=3))
    machine.after_call = crash_at(7)                                # called with each call's number and verb
    machine.reboot()                                                # sessions from before answer no more

Everything it tells carries the label `simulated`. It shares no rule with the MIG planner or its checker.
"""

from .faults import Fault, FaultKind
from .machine import SimulatedMachine
from .machines import simulated_machine
from .session import SimulatedGpus

__all__ = ["Fault", "FaultKind", "SimulatedGpus", "SimulatedMachine", "simulated_machine"]
