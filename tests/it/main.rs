//! The behaviour of Postern as its users meet it: real processes, a real PostgreSQL, real clients. One binary, a module per
//! behaviour; `make test` installs what it needs and runs it.

/// What administrators read and change with `ctl`.
mod administration;
/// The rules about the source: which room may use which, and what may be named where.
mod architecture;
/// What became of statements, as the audit log has it; strict mode; a `kill -9` in the middle.
mod audit;
/// A configuration, a resource, a port or a data directory that cannot be used: what is said, and the exit code.
mod bad_start;
/// PostgreSQL unreachable, without TLS, with a certificate that is not trusted, or distrusting ours.
mod bad_upstream;
/// What `make bench` stands on.
mod bench;
/// Whole databases and hundreds of megabytes through the gateway.
mod bulk;
/// The system calls that a statement and a megabyte cost proxy and agent.
mod calls;
/// Long campaigns, which `make test` leaves out.
mod campaigns;
/// Ctrl-C in psql.
mod cancel;
/// Clients of every kind: each line of the tables in `docs/clients.md`.
mod clients;
/// The table of what clients read, and drivers that read it.
mod closes;
/// The commands that set nodes up, under the names that the guide calls the program by.
mod commands;
/// What an agent serves: verification of PostgreSQL, its health, labels that commands give, certificates.
mod databases;
/// Who is turned away, with which SQLSTATE and in which words.
mod denials;
/// `postern dev`, and the example that starts several nodes.
mod dev;
/// A node that finishes what is open before it stops; its answers to probes; a configuration that is read again.
mod drained;
/// What fails in PostgreSQL, message by message, and clients that vanish.
mod failing;
/// A panic in every actor, one after the other, and the table of it.
#[cfg(feature = "fault-points")]
mod fault_table;
/// Panics inside the program, provoked.
#[cfg(feature = "fault-points")]
mod faults;
/// What the proxy's port answers to those who do not speak as they should.
mod first_bytes;
/// The example that follows a connection.
mod followed;
/// Peers of version 1 of the node protocol, as it was frozen, with the nodes of today.
mod frozen;
/// The corpus of the fuzz targets, with small changes.
mod fuzzed;
/// `docs/guide.md`, typed as it stands, on hosts in namespaces of their own.
mod guide;
/// What hangs, and the one command that says why.
mod hangs;
/// What the tests stand on.
mod harness;
/// An administrator's program that hangs up before it is answered.
mod hung_up;
/// Looking into a node that runs, at its debug socket.
mod inside;
/// Join tokens: how they are made, listed and removed, whom they admit, and what a node that is turned away says.
mod joining;
/// `kill -9` of a node, and of all of them.
mod killed;
/// What ends or refuses a session before its time: locks, idle and expired sessions, too many of them, another address.
mod limits;
/// The log of a node: the names of its fields, its form, and what is never in it.
mod log_of_a_node;
/// What a node tells Prometheus.
mod metrics;
/// What people type and send, looked for in everything that the nodes write and answer.
mod payload;
/// Nodes that say what they may not.
mod peers;
/// What people ask of auth through a proxy, and administration by role.
mod people;
/// Several proxies, and several agents of one database.
mod proxies;
/// Queries of psql, pgbench and psycopg, and what the audit log has of them.
mod queries;
/// How large the records of TLS are that a client gets.
mod records;
/// What runs on the nodes, as people see it through auth.
mod remote;
/// A node that an administrator removes.
mod removed;
/// Host certificates over months.
mod renewed;
/// Replication connections: who may have one, and what ends one that streams.
mod replication;
/// A role taken away from somebody who is connected.
mod revoked;
/// The link that sets a password, and what else a proxy answers over HTTPS.
mod sign_up;
/// A node that is told to stop, with somebody connected.
mod stopped;
/// Peers that are slow, silent, strangers, or behind a balancer.
mod strangers;
/// Panics in threads that are no actors, and threads that are blocked.
#[cfg(feature = "fault-points")]
mod threads;
/// Mistakes that the guide invites to: another name, another database, another path, an old token.
mod traps;
/// The commands of people who use databases.
mod tsh;
/// People: added, listed, changed, reset and removed by an administrator.
mod users;
/// A certificate of the operator's own, which the proxy presents to people.
mod web_certificate;
