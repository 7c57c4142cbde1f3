"""What is at both ends of a link: PostgreSQL at the site, the client in the cluster, and nothing between them or Postern, whose tunnels
cross the link. Its agent has as many of them as it has worker threads, one for each core that it finds."""

import contextlib
import json
import os
from dataclasses import replace

from machine.scratch import BenchError, run, until
from targets import others, postern
from targets.all import DIRECT, answering

ONE_TUNNEL, TWO_TUNNELS = "postern-one-tunnel", "postern-two-tunnels"
TUNNELS = {ONE_TUNNEL: 1, TWO_TUNNELS: 2}
NAMES = [DIRECT, ONE_TUNNEL, TWO_TUNNELS]


@contextlib.contextmanager
def on_cores(count):
    """What is started within finds so many cores."""
    all_of_them = os.sched_getaffinity(0)
    if len(all_of_them) < count:
        raise BenchError(f"{count} tunnels take {count} cores, and there are {len(all_of_them)}")
    os.sched_setaffinity(0, sorted(all_of_them)[:count])
    try:
        yield all_of_them
    finally:
        os.sched_setaffinity(0, all_of_them)


def spread(process, cores):
    """Every thread of it may run on all of them again: fewer tunnels are compared, and not fewer cores."""
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        os.sched_setaffinity(int(thread), cores)


def tunnels(cluster):
    """That are up, as the agent itself has it."""
    data = cluster.data_of(cluster.nodes["agent"])
    found = json.loads(run([cluster.program, "actors", "--data-dir", data, "--kind", "dialer", "--format", "json"])[0])
    return sum(actor["state"] == "up" for actor in found["actors"])


def through_postern(scratch, program, upstream, name, link):
    cluster = postern.Cluster(scratch, program, upstream, name)
    cluster.auth_directory = cluster.directory / "auth"
    auth = cluster.node("auth", cluster.auth_section())
    cluster.trusted_upstream()
    reached = cluster.proxy_section("0.0.0.0", ["localhost", link.cluster_address])
    port = postern.port_of(cluster.node("proxy", cluster.joining("auth_server", postern.port_of(auth, "auth")), reached), "proxy")
    joining = cluster.joining("proxy_server", port, link.cluster_address)
    with link.site(), on_cores(TUNNELS[name]) as cores:
        cluster.node("agent", joining, cluster.agent_section())
    nodes = cluster.nodes
    spread(nodes["agent"], cores)
    until(f"{TUNNELS[name]} tunnels are up", lambda: tunnels(cluster) == TUNNELS[name], watched=nodes.values())
    return postern.finished(cluster, name, port, [nodes["proxy"], nodes["agent"]], [nodes["auth"]])


def start(scratch, program, upstream, name, link):
    """In the cluster, where the caller is."""
    if name == DIRECT:
        target = others.direct(scratch, upstream, name)
        target.door = replace(target.door, address=link.site_address)
    else:
        target = through_postern(scratch, program, upstream, name, link)
    return answering(target)
