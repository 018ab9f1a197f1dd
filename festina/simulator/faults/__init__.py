"""Faults in virtual time: the real scheduler, agents and clients on a network that fails.

One seed is one run. It draws a plan (`plan`): a cluster, its requests, and ten seconds of lost,
late, repeated and reordered messages, cut links, full queues, frozen and crashed processes, and
failing engines. Then the faults stop, the scheduler is killed once more and its successor is
compared with what it was (`audit`). All that is said on the wire and told to callers is watched
(`watch`, `checks`) for promises 1, 2, 4 and 6 of DESIGN section 5.

What is under test is `festina.runtime.protocol`, driven as its shells drive it. There is no
consolidator process yet; it would be one more `Process`, and `Plan.outages` names processes by
name. Until then `Plan.orders` has the scheduler's address send the `Load`, `Unload`, `Park` and
`Wake` that it would send.
"""
