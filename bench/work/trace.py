"""Where the time of a connection went before its first byte of PostgreSQL's, out of what `postern trace` says.

Each node's times are by its own clock, so a stage is between two records of one node.
"""

from machine.scratch import BenchError

STAGES = ["greeting", "authorising", "tunnel", "deciding", "certificate", "of_auth", "connecting", "answering"]


def stages(trace):
    """Microseconds by name, in the order of STAGES:

    greeting      the proxy: TLS with the client, up to its StartupMessage
    authorising   the proxy: certificate, decision, registration, and the event on disk
    tunnel        from the proxy to the agent and back, without what the agent does
    deciding      the agent: the same again
    certificate   the agent: its certificate for PostgreSQL, kept or new
    of_auth       · of this, the question to auth, where there was one
    connecting    the agent: TCP, TLS and start-up with PostgreSQL, and the event on disk
    answering     the proxy: from the agent's answer until bytes pass
    """
    records = [(part["node"], record) for part in trace["parts"] for record in part["records"]]

    def at(kind, what, near):
        """The node's time of its first such record at, or from, an actor whose name has `near` in it."""
        for node, record in records:
            if record["kind"] == kind and record["what"] == what and near in (record["from"] or "") + " " + (record["to"] or ""):
                return node, record["at_us"]
        return None

    def between(begin, end):
        if not (begin and end and begin[0] == end[0]):
            raise BenchError(f"the trace of connection {trace['connection']} lacks one of its stages")
        return end[1] - begin[1]

    proxy, agent = "listener/connection#", "agent/upstream#"
    sent, answered = at("sent", "OpenRelay", proxy), at("answered", "OpenRelay", proxy)
    asked, given = at("sent", "GetUpstreamClient", agent), at("answered", "GetUpstreamClient", agent)
    deciding, relaying = at("state", "deciding", agent), at("state", "relaying", agent)
    found = {
        "greeting": between(at("state", "greeting", proxy), at("state", "authorising", proxy)),
        "authorising": between(at("state", "authorising", proxy), at("state", "opening", proxy)),
        "tunnel": between(sent, answered) - between(deciding, relaying),
        "deciding": between(deciding, asked),
        "certificate": between(asked, given),
        "connecting": between(at("state", "connecting", agent), relaying),
        "answering": between(answered, at("state", "relaying", proxy)),
    }
    questions = [at(kind, "IssueDbClient", "") for kind in ("sent", "answered")]
    found["of_auth"] = between(*questions) if all(questions) else 0
    return found
