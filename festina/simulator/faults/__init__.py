"""Faults in virtual time: the real scheduler, agents and clients on a network that fails.

One seed is one run. It draws a plan (`plan`): a cluster, its requests, and ten seconds of lost,
late, repeated and reordered messages, cut links, full queues, frozen and crashed processes, and
failing engines. Then the faults stop, the scheduler is killed once more and its successor is
compared with what it was (`audit`). All that is said on the wire and told to callers is watched
(`watch`, `checks`) for promises 1, 2, 4 and 6 of DESIGN section 5.

What is under test is `festina.runtime.protocol`, driven as its shells drive it. In two plans of
three an eager consolidator empties, parks and wakes GPUs all the time, until it is killed for good:
by the audit nothing may be left drained. `Plan.orders` has the scheduler's address send `Load`,
`Unload`, `Park` and `Wake` on top, by chance.
"""
