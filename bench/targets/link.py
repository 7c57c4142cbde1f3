"""What is at both ends of a link: PostgreSQL at the site, the client in the cluster, and nothing between them or Postern, whose tunnels
cross the link. Its agent has as many of them as it has worker threads (`worker_threads`)."""

import json
from dataclasses import replace

from machine.scratch import run, until
from targets import others, postern
from targets.all import DIRECT, answering

ONE_TUNNEL, TWO_TUNNELS = "postern-one-tunnel", "postern-two-tunnels"
TUNNELS = {ONE_TUNNEL: 1, TWO_TUNNELS: 2}
NAMES = [DIRECT, ONE_TUNNEL, TWO_TUNNELS]


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
    with link.site():
        cluster.node("agent", f"  worker_threads: {TUNNELS[name]}\n", joining, cluster.agent_section())
    nodes = cluster.nodes
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
