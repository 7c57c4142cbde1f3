//! The example that follows a connection does what it says.

use crate::harness::{Cluster, Form, Kind, Session};

#[path = "../../examples/follow_a_connection.rs"]
mod follow_a_connection;

#[test]
fn the_example_shows_a_connection_from_its_beginning_to_postgresql() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::open(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    let mut out = Vec::new();
    let data_dir = &cluster.node(Kind::Proxy).config.data_dir;
    follow_a_connection::follow(data_dir, &mut out).expect("the socket answers");
    let text = String::from_utf8(out).expect("text");
    for part in ["OpenRelay", "agent-1", "proxy-1", "GetUpstreamClient"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
