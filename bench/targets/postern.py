"""Postern, as it is installed: auth, proxy and agent in processes of their own, or in one. What an operator does stands here in
order; examples/cluster.sh says it with more words. The audit log is on, on disk, with its fsyncs."""

import json
import secrets

from machine.scratch import BenchError, run, until
from targets.target import NAME, Target, middle_environment
from wire.session import Door

# A working day: longer than any run.
PERSON_TTL = "20h"

RULES = """\
kind: role
version: v5
metadata: {{name: {name}}}
spec:
  allow:
    db_labels: {{env: bench}}
    db_users: ['*']
    db_names: [{name}]
"""
PERSON = """\
---
kind: user
version: v2
metadata: {{name: {person}}}
spec: {{roles: [{name}]}}
"""


class Cluster:
    """`program` is the postern to measure."""

    def __init__(self, scratch, program, upstream, name):
        self.scratch, self.program, self.upstream, self.name = scratch, program, upstream, name
        self.directory = scratch.directory / f"cluster-{name}-{secrets.token_hex(3)}"
        self.directory.mkdir(mode=0o700)
        self.token = secrets.token_hex(16)
        self.nodes = {}
        self.auth_directory = None

    def node(self, name, *sections):
        """Starts a node and waits until it listens; what it says about that."""
        data = self.directory / name
        file = self.directory / f"{name}.yaml"
        file.write_text(f"version: v3\npostern:\n  nodename: {name}\n  data_dir: {data}\n" + "".join(sections))
        process = self.scratch.start(f"{self.directory.name}-{name}", [self.program, "start", "--config", file], env=middle_environment())
        self.nodes[name] = process

        def listening():
            try:
                up = json.loads((data / "listening.json").read_text())
            except (OSError, ValueError):
                return None
            return up if up.get("pid") == process.pid else None

        return until(f"{name} listens", listening, watched=[process])

    def auth_section(self):
        return f'auth_service:\n  enabled: yes\n  cluster_name: {self.name}.example.com\n  listen_addr: 127.0.0.1:0\n  tokens: ["proxy,db:{self.token}"]\n'

    def joining(self, key, port, host="localhost"):
        pin = json.loads(self.ctl("status", "--format", "json"))["ca_pins"][0]
        return f"  {key}: {host}:{port}\n  auth_token: {self.token}\n  ca_pin: {pin}\n"

    @staticmethod
    def proxy_section(listen="127.0.0.1", names=("localhost",)):
        return f"proxy_service:\n  enabled: yes\n  web_listen_addr: {listen}:0\n  public_addr: [{', '.join(names)}]\n"

    def agent_section(self):
        return (
            f"db_service:\n  enabled: yes\n  databases:\n  - name: {NAME}\n    protocol: postgres\n    uri: localhost:{self.upstream.port}\n"
            f"    static_labels: {{env: bench}}\n    tls: {{mode: verify-full, ca_cert_file: {self.upstream.authority.root}}}\n"
        )

    def ctl(self, *arguments):
        return run([self.program, "ctl", "--data-dir", self.auth_directory, *arguments])[0]

    def data_of(self, process):
        """The data directory of one of its nodes."""
        return next(self.directory / name for name, node in self.nodes.items() if node is process)

    def create(self, *people):
        """The role, and these people, who hold it."""
        file = self.directory / "rules.yaml"
        file.write_text(RULES.format(name=NAME) + "".join(PERSON.format(person=person, name=NAME) for person in people))
        self.ctl("create", "-f", file)

    def person(self, name):
        """A certificate for the service; the path without its ending."""
        prefix = self.directory / f"person-{name}"
        self.ctl("auth", "sign", "--format=file", f"--user={name}", f"--db-service={NAME}", f"--ttl={PERSON_TTL}", f"--out={prefix}")
        return prefix

    def door(self, port, prefix):
        return Door(port, f"{prefix}.cas", f"{prefix}.crt", f"{prefix}.key", NAME, NAME)

    def trusted_upstream(self):
        """PostgreSQL lets in who has a certificate of the cluster's authority for that."""
        self.upstream.trust(self.ctl("auth", "export", "--type=db-client"))


def port_of(up, service):
    if service not in up:
        raise BenchError(f"listening.json has no {service}: {up}")
    return int(up[service].rsplit(":", 1)[1])


def apart(program):
    def start(scratch, upstream, name):
        cluster = Cluster(scratch, program, upstream, name)
        cluster.auth_directory = cluster.directory / "auth"
        auth = cluster.node("auth", cluster.auth_section())
        cluster.trusted_upstream()
        proxy = cluster.node("proxy", cluster.joining("auth_server", port_of(auth, "auth")), cluster.proxy_section())
        port = port_of(proxy, "proxy")
        cluster.node("agent", cluster.joining("proxy_server", port), cluster.agent_section())
        nodes = cluster.nodes
        return finished(cluster, name, port, [nodes["proxy"], nodes["agent"]], [nodes["auth"]])

    return start


def in_one(program):
    def start(scratch, upstream, name):
        cluster = Cluster(scratch, program, upstream, name)
        cluster.auth_directory = cluster.directory / "one"
        up = cluster.node("one", cluster.auth_section(), cluster.proxy_section(), cluster.agent_section())
        cluster.trusted_upstream()
        return finished(cluster, name, port_of(up, "proxy"), [cluster.nodes["one"]], [])

    return start


def finished(cluster, name, port, middle, auth):
    cluster.create(NAME)
    return Target(name, cluster.door(port, cluster.person(NAME)), middle, auth, cluster)
